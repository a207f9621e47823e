"""From pooled seconds to style tokens."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spirit.speech.style import (
    F0_STATISTICS,
    StyleFormat,
    StyleTokenizer,
    pool_f0,
    pool_features,
)

FORM = StyleFormat(names=("calm", "excited"), channels=4, hidden=16, context=1)


def untrained(seed: int = 0) -> StyleTokenizer:
    torch.manual_seed(seed)
    return StyleTokenizer(FORM, FORM.network())


@given(st.integers(1, 120))
def test_a_second_is_pooled_from_its_own_frames(frames: int) -> None:
    features = torch.randn(frames, 4, generator=torch.Generator().manual_seed(frames))
    pooled = pool_features(features)
    assert pooled.shape == (-(-frames // 25), 12)
    for second, row in enumerate(pooled):
        own = features[25 * second : 25 * second + 25]
        torch.testing.assert_close(row[:4], own.mean(0))
        torch.testing.assert_close(row[4:8], own.std(0, correction=0))
        if len(own) > 1:
            torch.testing.assert_close(row[8:], own.diff(dim=0).abs().mean(0))
        else:
            assert not row[8:].any()


def test_the_pitch_of_a_second_knows_height_spread_and_voicing() -> None:
    f0 = np.concatenate([np.full(200, 150.0), np.zeros(200), np.tile([100.0, 300.0], 50)])
    flat, silent, wild = pool_f0(f0, 3)
    np.testing.assert_allclose(flat[[0, 1, 2, 3, 4, 5, 7]], [1, 0, 0, 0, 0, 0, 1], atol=1e-6)
    assert silent.tolist() == [0] * 7 + [1]
    np.testing.assert_allclose(wild[1], np.log([100 / 150, 2]).mean(), rtol=1e-5)
    np.testing.assert_allclose(wild[2], np.log(3) / 2, rtol=1e-5)
    assert wild[7] == 0.5
    np.testing.assert_allclose(flat[6] * 2 + wild[6], 0, atol=1e-5)  # both against one mean


def test_silence_and_the_shortest_sound_have_a_style() -> None:
    tokenizer = untrained()
    for frames in (1, 25, 26):
        pooled = pool_features(torch.zeros(frames, 4))
        styles = tokenizer.tokens(pooled, np.zeros(1))
        assert styles.shape == (-(-frames // 25),)
        assert styles.dtype == np.int32
        assert set(styles.tolist()) <= {0, 1}


def test_the_seconds_around_have_a_say_and_those_beyond_have_none() -> None:
    network = FORM.network().eval()
    pooled = torch.randn(1, 7, FORM.inputs)
    changed = pooled.clone()
    changed[0, 6] += 10
    moved = (network(pooled) - network(changed)).abs().sum(-1)[0] > 1e-6
    assert moved.tolist() == [False] * 5 + [True] * 2


def test_hours_have_the_styles_that_the_network_gives_them_in_one_go() -> None:
    tokenizer = untrained()
    pooled = torch.randn(1_001, 12, generator=torch.Generator().manual_seed(0))
    f0 = np.random.default_rng(0).uniform(80, 300, 1_001 * 200)
    described = torch.cat([pooled, torch.from_numpy(pool_f0(f0, 1_001))], -1)
    with torch.inference_mode():
        wanted = tokenizer.network(described[None])[0].argmax(-1)
    assert tokenizer.tokens(pooled, f0).tolist() == wanted.tolist()
    assert 0 < wanted.float().mean() < 1


def test_padding_a_batch_changes_no_second() -> None:
    network = FORM.network().eval()
    rows = torch.randn(2, 5, FORM.inputs)
    present = torch.arange(5) < torch.tensor([[5], [3]])
    together = network(rows, present)
    torch.testing.assert_close(together[1, :3], network(rows[1:, :3])[0], rtol=1e-4, atol=1e-5)


def test_training_finds_styles_that_differ_in_one_statistic() -> None:
    rng = np.random.default_rng(0)
    recordings, labels = [], []
    for i in range(120):
        f0 = 150 * np.exp(rng.normal(0, 0.05 if i % 2 else 0.2, 600))
        pitch = pool_f0(f0, 3)
        features = pool_features(torch.from_numpy(rng.normal(size=(75, 4)).astype(np.float32)))
        recordings.append(np.concatenate([features.numpy(), pitch], 1))
        labels.append(i % 2)
    torch.manual_seed(0)
    network = FORM.network()
    network.normalize_by(torch.from_numpy(np.concatenate(recordings[:80])))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    inputs = torch.from_numpy(np.stack(recordings[:80]))
    wanted = torch.tensor(labels[:80])[:, None].expand(-1, 3)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(network(inputs).flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    figures = StyleTokenizer(FORM, network).figures(recordings[80:], labels[80:])
    assert figures["chance"] == 0.5
    assert figures["accuracy_second"] > 0.9
    assert figures["accuracy_recording"] > 0.9
    assert figures["recordings"] == 40


def test_a_saved_tokenizer_gives_the_same_styles(tmp_path: Path) -> None:
    tokenizer = untrained(3)
    tokenizer.network.normalize_by(torch.randn(50, FORM.inputs))
    tokenizer.save(tmp_path)
    again = StyleTokenizer.load(tmp_path)
    assert again.form == FORM
    assert list(again.names) == ["calm", "excited"]
    pooled = torch.randn(40, 12)
    f0 = np.abs(np.random.default_rng(0).normal(150, 30, 8_000))
    assert again.tokens(pooled, f0).tolist() == tokenizer.tokens(pooled, f0).tolist()


def test_a_narrow_tokenizer_is_saved_whole_and_an_older_one_is_read(tmp_path: Path) -> None:
    form = replace(FORM, narrow=3)
    tokenizer = StyleTokenizer(form, form.network(0.5))
    pooled, f0 = torch.randn(9, 12), np.full(1_800, 150.0)
    tokenizer.save(tmp_path / "new")
    again = StyleTokenizer.load(tmp_path / "new")
    assert again.form == form
    assert again.tokens(pooled, f0).tolist() == tokenizer.tokens(pooled, f0).tolist()
    untrained().save(tmp_path / "old")
    path = tmp_path / "old/style.json"
    told = json.loads(path.read_text())
    del told["narrow"]
    path.write_text(json.dumps(told))
    assert StyleTokenizer.load(tmp_path / "old").form == FORM


def test_what_passes_few_channels_is_not_learned_by_heart() -> None:
    """Two voices; high in the one is low in the other, and every recording sounds like itself."""
    rng = np.random.default_rng(0)

    def recordings(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        voice, style = rng.integers(2, size=count), rng.integers(2, size=count)
        features = rng.normal(size=(count, 192)).astype(np.float32)
        features[:, :48] += 1.5 * (2 * voice[:, None] - 1)
        f0 = np.zeros((count, F0_STATISTICS), np.float32)
        f0[:, 1] = voice + style + rng.normal(0, 0.2, count)
        rows = np.concatenate([features, f0], 1)[:, None]
        return torch.from_numpy(rows), torch.from_numpy(style)

    (known, said), (unknown, wanted) = recordings(120), recordings(400)
    right = {}
    for narrow in (0, 4):
        torch.manual_seed(0)
        form = replace(FORM, channels=64, hidden=32, narrow=narrow)
        network = form.network(0.65)
        network.normalize_by(known[:, 0])
        optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.05)
        for _ in range(400):
            loss = torch.nn.functional.cross_entropy(network(known)[:, 0], said)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.inference_mode():
            guessed = network.eval()(unknown)[:, 0].argmax(-1)
        right[narrow] = float((guessed == wanted).float().mean())
    assert right[4] > 0.93
    assert right[4] > right[0] + 0.05


def test_a_description_that_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"make it with `spirit fit style`"):
        StyleTokenizer.load(tmp_path)
    untrained().save(tmp_path)
    path = tmp_path / "style.json"
    form = json.loads(path.read_text())
    for key, value, message in (
        ("names", ["a", "a"], "different styles"),
        ("names", [], "different styles"),
        ("channels", 5, "does not fit"),
        ("narrow", -1, "narrow at least 0"),
        ("colour", "red", "unknown key 'colour'"),
    ):
        path.write_text(json.dumps({**form, key: value}))
        with pytest.raises(ValueError, match=message) as error:
            StyleTokenizer.load(tmp_path)
        assert "\n" not in str(error.value)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"style\.json cannot be read as JSON"):
        StyleTokenizer.load(tmp_path)


def test_the_number_of_pitch_statistics_is_what_the_format_says() -> None:
    assert pool_f0(np.full(10, 100.0), 1).shape == (1, F0_STATISTICS)
