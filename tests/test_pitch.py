"""From F0 to pitch tokens and back."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from spirit.speech.pitch import CHUNK, PitchFormat, PitchTokenizer, chunks
from spirit.speech.vq import Codebook, PitchVQ
from spirit.units import SAMPLE_RATE

SMALL = PitchFormat(width=8, depth=1, channels=16, codes=16)


def small_tokenizer(seed: int = 0) -> PitchTokenizer:
    torch.manual_seed(seed)
    network = SMALL.network()
    network.codebook.vectors.normal_(std=0.1)
    return PitchTokenizer(SMALL, network, SMALL.hear("cpu"))


def draw_contours(count: int, rng: np.random.Generator) -> torch.Tensor:
    """Contours that wander, with voicing that comes and goes, as the network reads them."""
    rows = []
    for _ in range(count):
        f0 = 120 * np.exp(np.cumsum(rng.normal(0, 0.02, 256)))
        f0[rng.integers(0, 200) :][: rng.integers(10, 56)] = 0
        rows.append(SMALL.contour(f0, 256))
    return torch.from_numpy(np.stack(rows))


def test_a_contour_is_log_f0_about_its_voiced_mean_with_lines_through_the_unvoiced() -> None:
    f0 = np.array([0.0, 100, 0, 0, 200, 0])
    line, voiced = PitchFormat(gain=1.0).contour(f0, 8)
    middle = np.log([100, 200]).mean()
    want = np.log([100, 100, 100 * 2 ** (1 / 3), 100 * 2 ** (2 / 3), 200, 200, 200, 200]) - middle
    np.testing.assert_allclose(line, want, atol=1e-6)
    assert voiced.tolist() == [0, 1, 0, 0, 1, 0, 0, 0]


def test_the_release_form_is_in_hertz() -> None:
    form = PitchFormat(extractor="fcpe", scale="hz", gain=1.0)
    line, voiced = form.contour(np.array([0.0, 100, 0, 200]), 3)
    np.testing.assert_allclose(line, [-50, -50, 0])
    assert voiced.tolist() == [0, 1, 0]
    raw, _ = PitchFormat(scale="hz", gain=1.0, centered=False, interpolated=False).contour(
        np.array([0.0, 100, 0, 200]), 4
    )
    assert raw.tolist() == [0, 100, 0, 200]


def test_silence_has_a_flat_contour_and_tokens() -> None:
    line, voiced = PitchFormat().contour(np.zeros(50), 64)
    assert not line.any()
    assert not voiced.any()
    tokenizer = small_tokenizer()
    (f0,) = tokenizer.f0([torch.zeros(SAMPLE_RATE)])
    assert not f0.any()
    assert len(set(tokenizer.tokens(f0, 13)[2:-2].tolist())) == 1


@pytest.mark.parametrize("samples", [0, 1, 160, 639, 1_279, 1_280, 1_281, 10_000])
def test_every_length_has_as_many_tokens_as_asked_for(samples: int) -> None:
    tokenizer = small_tokenizer()
    count = max(1, -(-max(1, samples // 640) // 2))
    (f0,) = tokenizer.f0([torch.full((samples,), 0.1)])
    codes = tokenizer.tokens(f0, count)
    assert codes.shape == (count,)
    assert codes.dtype == np.int32


@given(st.integers(0, 500_000))
def test_chunks_cover_a_recording_and_none_is_a_stub(frames: int) -> None:
    spans = chunks(frames)
    assert spans[0][0] == 0
    assert spans[-1][1] == frames
    assert all(stop == start for (_, stop), (start, _) in pairwise(spans))
    assert all(start % CHUNK == 0 for start, _ in spans)
    assert len(spans) == 1 or all(2_000 <= stop - start <= 22_000 for start, stop in spans)


def test_a_long_recording_is_the_sum_of_its_chunks() -> None:
    seconds = 112
    f0 = 150 * 2 ** np.sin(np.arange(seconds * SAMPLE_RATE) / 40_000)
    wave = torch.from_numpy(np.sin(2 * np.pi * np.cumsum(f0) / SAMPLE_RATE).astype(np.float32))
    tokenizer = small_tokenizer()
    whole, first, rest = tokenizer.f0([wave, wave[: 100 * SAMPLE_RATE], wave[100 * SAMPLE_RATE :]])
    assert len(whole) == seconds * 200 + 1
    np.testing.assert_allclose(whole[:CHUNK], first[:-1], rtol=1e-5)
    np.testing.assert_allclose(whole[CHUNK:], rest, rtol=1e-5)
    codes = tokenizer.tokens(whole, 1_400)
    assert codes[:1_250].tolist() == tokenizer.tokens(first[:-1], 1_250).tolist()
    assert codes[1_250:].tolist() == tokenizer.tokens(rest, 150).tolist()


def test_the_network_has_the_size_of_the_release() -> None:
    network = PitchFormat().network()
    assert sum(p.numel() for p in network.parameters()) == 200_194
    assert network.encode(torch.zeros(2, 2, 160)).shape == (2, 10)
    assert network.decode(torch.zeros(2, 10, dtype=torch.long)).shape == (2, 2, 160)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60))
def test_every_contour_has_one_code_per_stride(tokens: int) -> None:
    codes = small_tokenizer().network.encode(torch.randn(1, 2, 16 * tokens))
    assert codes.shape == (1, tokens)
    assert 0 <= int(codes.min()) <= int(codes.max()) < 16


def test_unused_codes_move_to_the_data() -> None:
    torch.manual_seed(0)
    codebook = Codebook(8, 4)
    data = torch.randn(3, 4, 40) + 5
    rng = torch.Generator().manual_seed(1)
    assert codebook.update(data, codebook(data), rng) == 7  # all but the first
    restarts = [codebook.update(data, codebook(data), rng) for _ in range(400)]
    assert restarts[-1] == 0
    assert len(codebook(data).unique()) == 8
    # Every vector is now the middle of what falls on it.
    flat, codes = data.transpose(1, 2).reshape(-1, 4), codebook(data).reshape(-1)
    middle = torch.stack([flat[codes == i].mean(0) for i in range(8)])
    assert (middle - codebook.vectors).norm(dim=1).max() < 0.3


def test_training_makes_codes_that_know_the_contour() -> None:
    torch.manual_seed(0)
    network = PitchVQ(width=16, depth=2, channels=32, codes=32)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    data = np.random.default_rng(0)
    rng = torch.Generator().manual_seed(0)
    for _ in range(80):
        contours = draw_contours(16, data)
        decoded, commitment, hidden, codes = network(contours)
        loss = torch.nn.functional.mse_loss(decoded, contours) + 0.02 * commitment
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        network.codebook.update(hidden, codes, rng)
    fresh = draw_contours(16, np.random.default_rng(1))
    with torch.inference_mode():
        codes = network.encode(fresh)
        again = network.decode(codes)
    heard, decoded = fresh[:, 0].flatten(), again[:, 0].flatten()
    assert torch.corrcoef(torch.stack([heard, decoded]))[0, 1] > 0.7
    assert ((again[:, 1] > 0.5) == (fresh[:, 1] > 0.5)).float().mean() > 0.85
    assert len(codes.unique()) >= 10


def test_a_saved_tokenizer_gives_the_same_tokens(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    tokenizer.save(tmp_path)
    again = PitchTokenizer.load(tmp_path)
    f0 = np.abs(np.random.default_rng(0).normal(150, 30, 500))
    assert again.form == SMALL
    assert again.tokens(f0, 31).tolist() == tokenizer.tokens(f0, 31).tolist()
    contour, voiced = again.decode(again.tokens(f0, 31))
    assert contour.shape == voiced.shape == (31 * 16,)


def test_a_folder_that_does_not_fit_is_named_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"pitch\.json is missing; make it with `spirit fit pitch`"
    ):
        PitchTokenizer.load(tmp_path)
    small_tokenizer().save(tmp_path)
    weights = tmp_path / "pitch.safetensors"
    form = json.loads((tmp_path / "pitch.json").read_text())
    (tmp_path / "pitch.json").write_text(json.dumps({**form, "codes": 17}))
    with pytest.raises(ValueError, match=r"does not fit pitch\.json.*fit the part again") as error:
        PitchTokenizer.load(tmp_path)
    assert "\n" not in str(error.value)
    (tmp_path / "pitch.json").write_text(json.dumps({**form, "extractor": "ear"}))
    with pytest.raises(ValueError, match="extractor must be one of autocorrelation, fcpe"):
        PitchTokenizer.load(tmp_path)
    (tmp_path / "pitch.json").write_text(json.dumps(form))
    state = {key: value.clone() for key, value in load_file(weights).items()}
    weights.write_bytes(weights.read_bytes()[:1_000])
    with pytest.raises(ValueError, match=r"pitch\.safetensors does not fit"):
        PitchTokenizer.load(tmp_path)
    del state["codebook.vectors"]
    save_file(state, weights)
    with pytest.raises(ValueError, match=r"codebook\.vectors"):
        PitchTokenizer.load(tmp_path)
    weights.unlink()
    with pytest.raises(ValueError, match=r"pitch\.safetensors is missing"):
        PitchTokenizer.load(tmp_path)
