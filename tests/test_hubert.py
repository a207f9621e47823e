"""HuBERT: one clock, and features that depend on nothing but the clip."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import HubertConfig, HubertModel

from spirit.speech.hubert import SHAPE, Hubert
from spirit.speech.prediction import MaskedPrediction, draw_mask
from spirit.speech.quantizer import KMeans

SIZES = {
    "hidden": 32,
    "layers": 3,
    "heads": 2,
    "ffn": 64,
    "conv_dim": (16, 24, 32),
    "conv_kernel": (400, 4, 4),
    "conv_stride": (160, 2, 2),
    "position_kernel": 8,
    "position_groups": 4,
}


@pytest.fixture(scope="module")
def hubert() -> Hubert:
    torch.manual_seed(0)
    return Hubert.new(**SIZES).eval()


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(samples).astype(np.float32) * 0.1


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=5))
def test_features_and_units_of_a_clip_do_not_depend_on_its_batch(hubert, lengths):
    waves = [noise(length, seed) for seed, length in enumerate(lengths)]
    together = hubert.features(waves)
    alone = [hubert.features([wave])[0] for wave in waves]
    with torch.no_grad():
        side_by_side = hubert(*hubert.pad(waves))  # as on a GPU
    for batched, padded in zip(together, side_by_side, strict=True):
        torch.testing.assert_close(batched, padded[: len(batched)], atol=1e-5, rtol=0)
    quantizer = KMeans(torch.randn(20, 32, generator=torch.Generator().manual_seed(1)))
    for batched, single in zip(together, alone, strict=True):
        torch.testing.assert_close(batched, single, atol=1e-5, rtol=0)
        np.testing.assert_array_equal(quantizer.units(batched), quantizer.units(single))


@pytest.mark.parametrize("samples", [1, 100, 639, 640, 641, 1279, 1280, 16_000, 16_001])
def test_a_wave_has_one_frame_per_hop_and_at_least_one(hubert, samples):
    (features,) = hubert.features([noise(samples)])
    assert features.shape == (max(1, samples // 640), 32)
    assert features.isfinite().all()


def test_a_frame_is_centred_on_its_own_samples(hubert):
    """The clicks that change what the convolutions say of frame 10 lie around its middle."""
    network, change = hubert.network, {}
    (still, _) = hubert.pad([np.zeros(20 * 640, np.float32)])
    for place in range(9 * 640, 12 * 640, 40):
        wave = np.zeros(20 * 640, np.float32)
        wave[place] = 1.0
        with torch.no_grad():
            both = network.feature_extractor(torch.cat([hubert.pad([wave])[0], still]))
        change[place - 10 * 640] = float((both[0, :, 10] - both[1, :, 10]).abs().sum())
    touched = [place for place, amount in change.items() if amount > 0]
    middle = (min(touched) + max(touched)) / 2
    assert abs(middle - 320) <= 40
    assert touched


def test_every_layer_can_be_had_by_cutting(hubert):
    waves = [noise(9_000), noise(5_000, 1)]
    for layer in (1, 2, 3):
        cut = hubert.cut(layer)
        assert len(cut.network.encoder.layers) == layer
        for ours, theirs in zip(cut.features(waves), hubert.features(waves, layer), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_layers_differ(hubert):
    wave = [noise(9_000)]
    assert not torch.allclose(hubert.features(wave, 1)[0], hubert.features(wave, 2)[0], atol=1e-2)


def test_hidden_frames_are_hidden(hubert):
    """With every frame masked, the transformer cannot tell two waves of one length apart."""
    padded, counts = hubert.pad([noise(6_400), noise(6_400, 1)])
    with torch.no_grad():
        blind = hubert(padded, counts, torch.ones(2, 10, dtype=torch.bool))
        plain = hubert(padded, counts)
    torch.testing.assert_close(blind[0], blind[1])
    assert not torch.allclose(plain[0], plain[1], atol=1e-2)


def test_saved_network_is_the_same_network(hubert, tmp_path):
    hubert.cut(2).save(tmp_path)
    again = Hubert.load(tmp_path)
    assert (again.layer, again.channels, again.hop) == (2, 32, 640)
    wave = noise(7_000)
    torch.testing.assert_close(again.features([wave])[0], hubert.features([wave], 2)[0])


def test_a_bad_folder_is_one_clear_line(hubert, tmp_path):
    with pytest.raises(
        ValueError, match=r"holds no hubert\.json; make it with `spirit fit hubert`"
    ):
        Hubert.load(tmp_path)
    hubert.save(tmp_path)
    entry = json.loads((tmp_path / SHAPE).read_text())
    for spoiled in (
        {**entry, "network": {**entry["network"], "hidden_size": 64}},
        {"layer": 1},
        {**entry, "network": {**entry["network"], "conv_kernel": "wide"}},
    ):
        (tmp_path / SHAPE).write_text(json.dumps(spoiled))
        with pytest.raises(ValueError, match="cannot be used") as caught:
            Hubert.load(tmp_path)
        assert "\n" not in str(caught.value)


def test_a_network_that_normalizes_over_time_is_refused():
    shape = HubertConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,),
        conv_kernel=(640,),
        conv_stride=(640,),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=4,
        feat_extract_norm="group",
    )
    with pytest.raises(ValueError, match="change with padding"):
        Hubert(HubertModel(shape))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"conv_dim": (16, 24)}, "lists of one length"),
        ({"heads": 5}, "multiple of heads"),
        ({"conv_kernel": (100, 1, 1)}, "widen conv_kernel"),
    ],
)
def test_sizes_that_cannot_work_are_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        Hubert.new(**{**SIZES, **change})


def test_masked_prediction_learns_to_name_sounds():
    torch.manual_seed(0)
    task = MaskedPrediction(Hubert.new(**SIZES), clusters=4)
    rng = np.random.default_rng(0)
    kinds = torch.from_numpy(np.repeat(rng.integers(4, size=(8, 3)), 4, axis=1))
    tone = np.sin(np.arange(640) * (0.2 + 0.3 * np.arange(4))[:, None]).astype(np.float32)
    wave = task.hubert.widen(torch.from_numpy(tone)[kinds].reshape(8, -1))
    masked = torch.from_numpy(draw_mask(8, 12, rng, start=0.1, span=2))
    optimizer = torch.optim.AdamW(task.parameters(), lr=2e-3)
    losses = []
    for _ in range(40):
        metrics = task(wave, masked, kinds, seen=1.0)
        optimizer.zero_grad()
        metrics["loss"].backward()
        optimizer.step()
        losses.append((float(metrics["seen"]), float(metrics["masked"])))
    assert losses[-1][0] < losses[0][0] / 3
    assert losses[-1][1] < losses[0][1]


def test_frames_without_a_target_do_not_count():
    """The loss of all frames is made of the losses of any two parts of them."""
    torch.manual_seed(0)
    task = MaskedPrediction(Hubert.new(**SIZES), clusters=7).eval()
    wave = task.hubert.widen(torch.randn(4, 12 * 640) * 0.1)
    targets = torch.randint(7, (4, 12))
    masked = torch.rand(4, 12) < 0.5
    part = torch.rand(4, 12) < 0.4
    with torch.no_grad():
        sums = [
            float(
                task(wave, masked, torch.where(kept, targets, -100))["masked"]
                * (kept & masked).sum()
            )
            for kept in (part, ~part, torch.ones_like(part))
        ]
    assert sums[0] + sums[1] == pytest.approx(sums[2], rel=1e-4)


@given(
    st.integers(1, 8), st.integers(1, 60), st.integers(1, 12), st.floats(0, 1), st.integers(0, 99)
)
def test_every_row_has_something_to_guess(batch, frames, span, start, seed):
    masked = draw_mask(batch, frames, np.random.default_rng(seed), start=start, span=span)
    assert masked.any(axis=1).all()


def test_masks_are_spans_of_the_wanted_share():
    masked = draw_mask(200, 100, np.random.default_rng(0), start=0.12, span=5)
    assert masked.mean() == pytest.approx(1 - 0.88**5, abs=0.03)
    edges = np.diff(np.pad(masked, ((0, 0), (1, 0))).astype(int), axis=1)
    for row, edge in zip(masked, edges, strict=True):
        for begin in np.flatnonzero(edge == 1):
            assert row[begin : begin + 5].all()
