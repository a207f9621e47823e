"""Fitting pitch and style tokenizers: from recordings to files, stopped and continued."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from spirit.audio import write_audio
from spirit.data.corpus import Utterance
from spirit.engine import TrainingConfig
from spirit.fit import measure as fit_measure
from spirit.fit.measure import draw_utterances, measure
from spirit.fit.prosody import PitchConfig, StyleConfig, fit_pitch, fit_style
from spirit.fit.styles import cluster
from spirit.speech.hubert import Hubert
from spirit.speech.pitch import PitchFormat, PitchTokenizer
from spirit.speech.style import StyleTokenizer

TRAINING = TrainingConfig(steps=4, lr=2e-3, warmup=1, dtype="fp32", device="cpu")
FORM = PitchFormat(width=8, depth=1, channels=16, codes=8)


def save_hubert(folder: Path, layers: int) -> None:
    """A small HuBERT of random weights, always the same."""
    torch.manual_seed(0)
    hubert = Hubert.new(
        hidden=16,
        layers=layers,
        heads=2,
        ffn=16,
        conv_dim=(8, 8, 8, 8),
        conv_kernel=(20, 16, 4, 2),
        conv_stride=(10, 8, 4, 2),
    )
    folder.mkdir()
    hubert.save(folder)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve hums of a second: calm ones keep their pitch, lively ones do not."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = []
    for i in range(12):
        style = ("calm", "lively")[i % 2]
        times = np.arange(16_000 + 400 * i) / 16_000
        f0 = 120 * 2 ** ((0.02, 0.6)[i % 2] * np.sin(2 * np.pi * 2 * times + i))
        phase = 2 * np.pi * np.cumsum(f0) / 16_000
        wave = sum(np.cos(n * phase) / n for n in range(1, 12)) * 0.15
        write_audio(folder / f"{i}.wav", np.asarray(wave, dtype=np.float32))
        seconds = len(times) / 16_000
        lines.append({"id": str(i), "audio": f"{i}.wav", "seconds": seconds, "style": style})
    (folder / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "train.jsonl"


def pitch_config(corpus: Path, out: Path, **changes: object) -> PitchConfig:
    arguments: dict[str, object] = {
        "corpus": corpus,
        "heldout": corpus,
        "out": out,
        "batch": 4,
        "frames": 160,
        "form": FORM,
        "training": TRAINING,
    }
    return PitchConfig(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pitch(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fit") / "pitch"
    fit_pitch(pitch_config(corpus, out))
    return out


def test_fitting_pitch_gives_a_tokenizer_and_its_figures(pitch: Path) -> None:
    tokenizer = PitchTokenizer.load(pitch)
    assert tokenizer.form == FORM
    assert tokenizer.network.codebook.vectors.abs().sum() > 0
    report = json.loads((pitch / "report.json").read_text())
    assert report["figures"]["recordings"] == 12
    assert 0 < report["figures"]["codes_used"] <= 1
    assert report["config"]["training"]["steps"] == 4


def test_a_finished_fit_is_not_done_again(
    corpus: Path, pitch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_mtime_ns for path in pitch.rglob("*") if path.is_file()}
    monkeypatch.setattr("spirit.fit.prosody.read_audio", _must_not_run)
    figures = fit_pitch(pitch_config(corpus, pitch))
    assert figures == json.loads((pitch / "report.json").read_text())["figures"]
    after = {path: path.stat().st_mtime_ns for path in pitch.rglob("*") if path.is_file()}
    assert after == before


def test_fitting_style_gives_a_tokenizer_and_its_figures(
    corpus: Path, pitch: Path, tmp_path: Path
) -> None:
    save_hubert(tmp_path / "hubert", layers=2)
    config = StyleConfig(
        corpus=corpus,
        heldout=corpus,
        hubert=tmp_path / "hubert",
        layer=1,
        pitch=pitch,
        out=tmp_path / "style",
        batch=8,
        hidden=16,
        context=0,
        training=TrainingConfig(steps=40, lr=1e-2, warmup=1, dtype="fp32", device="cpu"),
    )
    figures = fit_style(config)
    assert list(StyleTokenizer.load(tmp_path / "style").names) == ["calm", "lively"]
    assert figures["chance"] == 0.5
    assert figures["accuracy_recording"] > 0.9  # of what it was trained on
    assert fit_style(config) == figures


def test_styles_are_found_where_nobody_names_them_and_speakers_are_none(
    corpus: Path, pitch: Path, tmp_path: Path
) -> None:
    lines, true = [], []
    for i in range(16):
        lively, high = i % 2, i // 2 % 2
        times = np.arange(32_000) / 16_000
        f0 = (100, 220)[high] * 2 ** ((0.02, 0.6)[lively] * np.sin(2 * np.pi * 2 * times + i))
        phase = 2 * np.pi * np.cumsum(f0) / 16_000
        wave = sum(np.cos(n * phase) / n for n in range(1, 12)) * 0.15
        write_audio(tmp_path / f"{i}.wav", np.asarray(wave, dtype=np.float32))
        lines.append({"audio": f"{i}.wav", "seconds": 2.0, "speaker": "lh"[high]})
        true.append(lively)
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    save_hubert(tmp_path / "hubert", layers=1)
    config = StyleConfig(
        corpus=path,
        heldout=path,
        hubert=tmp_path / "hubert",
        layer=1,
        pitch=pitch,
        out=tmp_path / "style",
        styles=2,
        batch=8,
        hidden=16,
        context=1,
        training=TrainingConfig(steps=60, lr=1e-2, warmup=1, dtype="fp32", device="cpu"),
    )
    figures = fit_style(config)
    tokenizer = StyleTokenizer.load(tmp_path / "style")
    assert list(tokenizer.names) == ["style-0", "style-1"]
    assert figures["accuracy_second"] > 0.9
    assert figures["speaker"] < 0.1
    assert figures["used"] == 1
    kept = load_file(tmp_path / "style" / "styles.safetensors")["labels"][:32]
    drawn = [int(u.id.removesuffix(".wav")) for u in draw_utterances(path, 2.0, 0)]
    lively = np.repeat([true[i] for i in drawn], 2)
    assert max((kept == lively).mean(), (kept != lively).mean()) > 0.8
    assert fit_style(config) == figures


def test_more_styles_than_seconds_are_refused() -> None:
    with pytest.raises(ValueError, match="9 styles cannot be found in 3 s of speech"):
        cluster([np.zeros((3, 2), np.float32)], 1, 9, seed=0)


def test_a_corpus_without_styles_is_refused(corpus: Path, pitch: Path, tmp_path: Path) -> None:
    (tmp_path / "plain.jsonl").write_text(json.dumps({"audio": str(corpus.parent / "0.wav")}))
    config = StyleConfig(
        corpus=tmp_path / "plain.jsonl",
        heldout=corpus,
        hubert=tmp_path,
        pitch=pitch,
        out=tmp_path / "style",
        training=TRAINING,
    )
    with pytest.raises(ValueError, match="fewer than two styles; give each line a `style`"):
        fit_style(config)


def test_a_recipe_that_cannot_be_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiple of 16, not 100"):
        pitch_config(corpus, tmp_path, frames=100)
    with pytest.raises(ValueError, match="hours above 0"):
        pitch_config(corpus, tmp_path, hours=0.0)


def test_measuring_goes_on_where_it_was_stopped(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_measure, "PART", 5)
    utterances = draw_utterances(corpus, 1.0, seed=0)
    stop_at = utterances[7].id
    kept = {utterance.id for utterance in utterances[:5]}

    def interrupted(utterance: Utterance) -> np.ndarray:
        if utterance.id == stop_at:
            raise KeyboardInterrupt
        return np.full((int(utterance.id) + 1, 2), float(utterance.id))

    def going_on(utterance: Utterance) -> np.ndarray:
        assert utterance.id not in kept
        return np.full((int(utterance.id) + 1, 2), float(utterance.id))

    with pytest.raises(KeyboardInterrupt):
        measure(utterances, tmp_path, "key", interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.npz"]
    rows = measure(utterances, tmp_path, "key", going_on)
    assert [len(row) for row in rows] == [int(u.id) + 1 for u in utterances]
    assert all((row == float(u.id)).all() for row, u in zip(rows, utterances, strict=True))
    measure(utterances, tmp_path, "key", _must_not_run)
    changed = measure(utterances, tmp_path, "another key", lambda u: np.zeros((1, 2)))
    assert [len(row) for row in changed] == [1] * 12


def test_drawing_takes_as_much_as_asked_for(corpus: Path) -> None:
    everything = draw_utterances(corpus, 1.0, seed=0)
    some = draw_utterances(corpus, 4 / 3600, seed=0)
    assert sorted(int(u.id) for u in everything) == list(range(12))
    assert [u.id for u in some] == [u.id for u in everything[: len(some)]]
    assert 4 <= sum(u.seconds or 0 for u in some) < 6
    assert [u.id for u in everything] != [u.id for u in draw_utterances(corpus, 1.0, seed=1)]


def _must_not_run(*_: object) -> np.ndarray:
    raise AssertionError("was kept, and measured again")
