"""What the F0 extractors hear."""

from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float

from spirit.audio import read_audio
from spirit.speech.f0 import HOP, Autocorrelation, F0Extractor, frame_count
from spirit.speech.f0_others import HEAR, OneByOne
from spirit.speech.fcpe import Fcpe
from spirit.units import SAMPLE_RATE

SPEECH = Path(__file__).parent / "data" / "jfk.flac"


def voice(f0: Float[np.ndarray, " samples"], noise: float = 0.0) -> torch.Tensor:
    """A buzz of harmonics that fall by 6 dB an octave, with a contour that is known exactly."""
    phase = 2 * np.pi * np.cumsum(f0) / SAMPLE_RATE
    wave = np.zeros_like(phase)
    for n in range(1, 30):
        wave += (n * f0 < 7_500) * np.cos(n * phase + 0.7 * n * n) / n
    wave *= 0.5 / np.abs(wave).max()
    wave += noise * np.random.default_rng(0).standard_normal(len(wave))
    return torch.from_numpy(wave.astype(np.float32))


def glide(low: float, high: float, seconds: float) -> Float[np.ndarray, " samples"]:
    return np.geomspace(low, high, int(seconds * SAMPLE_RATE))


def vibrato(middle: float, seconds: float = 1.5) -> Float[np.ndarray, " samples"]:
    times = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return middle * 2 ** (np.sin(2 * np.pi * 6 * times) / 12)


@pytest.mark.parametrize(
    ("contour", "noise"),
    [
        (glide(60, 1_000, 3), 0.0),
        (glide(1_000, 60, 3), 0.0),
        (glide(80, 400, 1), 0.0),
        (vibrato(90), 0.0),
        (vibrato(220), 0.0),
        (vibrato(700), 0.0),
        (vibrato(200), 0.05),
    ],
    ids=["glide up", "glide down", "fast glide", "low", "middle", "high", "noisy"],
)
def test_glides_and_vibrato_are_followed(contour: np.ndarray, noise: float) -> None:
    f0 = Autocorrelation()(voice(contour, noise)).numpy()
    true = contour[np.minimum(np.arange(len(f0)) * HOP, len(contour) - 1)]
    voiced = f0 > 0
    assert voiced.mean() > 0.97
    assert (np.abs(f0[voiced] / true[voiced] - 1) > 0.03).mean() < 0.02


def test_an_utterance_of_known_voicing_is_cut_where_the_voice_stops() -> None:
    wave = voice(glide(120, 180, 2))
    wave[SAMPLE_RATE // 2 : SAMPLE_RATE] = 0.01 * torch.randn(
        SAMPLE_RATE // 2, generator=torch.Generator().manual_seed(0)
    )
    voiced = Autocorrelation()(wave).numpy() > 0
    times = np.arange(len(voiced)) * HOP / SAMPLE_RATE
    inside = (times > 0.53) & (times < 0.97)
    assert voiced[inside].mean() < 0.05
    assert voiced[(times < 0.47) | (times > 1.03)].mean() > 0.95


def test_silence_and_noise_are_unvoiced() -> None:
    hear = Autocorrelation()
    noise = torch.randn(3 * SAMPLE_RATE, generator=torch.Generator().manual_seed(0))
    assert not hear(torch.zeros(SAMPLE_RATE)).any()
    assert not hear(torch.full((SAMPLE_RATE,), 0.3)).any()
    assert (hear(noise) > 0).float().mean() < 0.15


def test_loudness_does_not_change_what_is_heard() -> None:
    wave = voice(vibrato(150, 0.5), noise=0.01)
    hear = Autocorrelation()
    torch.testing.assert_close(hear(wave * 0.01), hear(wave), rtol=1e-3, atol=0.0)


def test_a_wave_does_not_notice_its_batch() -> None:
    waves = [voice(vibrato(f0, seconds)) for f0, seconds in ((120, 0.7), (300, 1.3), (90, 0.05))]
    waves += [torch.zeros(100), torch.zeros(0)]
    hear = Autocorrelation()
    for alone, together in zip(map(hear, waves), hear.batch(waves), strict=True):
        assert torch.equal(alone > 0, together > 0)
        torch.testing.assert_close(alone, together, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("samples", [0, 1, 79, 80, 639, 640, 1_281])
def test_every_length_has_its_frames(samples: int) -> None:
    assert len(Autocorrelation()(torch.zeros(samples))) == frame_count(samples) == samples // 80 + 1


def test_blocks_leave_no_seams() -> None:
    contour = glide(100, 300, 45)  # more than two blocks of 20 s
    f0 = Autocorrelation()(voice(contour)).numpy()
    true = contour[np.minimum(np.arange(len(f0)) * HOP, len(contour) - 1)]
    assert np.abs(f0[10:-10] / true[10:-10] - 1).max() < 0.01


def test_both_extractors_are_extractors_and_agree_on_a_human_voice() -> None:
    ours, theirs = Autocorrelation(), Fcpe()
    assert isinstance(ours, F0Extractor)
    assert isinstance(theirs, F0Extractor)
    wave = torch.from_numpy(read_audio(SPEECH))
    mine, other = ours(wave).numpy(), theirs(wave).numpy()
    assert len(mine) == len(other) == frame_count(len(wave))
    both = (mine > 0) & (other > 0)
    assert ((mine > 0) == (other > 0)).mean() > 0.8
    assert (np.abs(mine[both] / other[both] - 1) > 0.2).mean() < 0.05


@pytest.mark.parametrize("name", HEAR)
def test_every_extractor_hears_a_vibrato_where_it_is(name: str) -> None:
    hear = OneByOne(name)
    assert isinstance(hear, F0Extractor)
    contour = vibrato(180, 0.8)
    silence = torch.zeros(SAMPLE_RATE // 5)
    f0 = hear(torch.cat([silence, voice(contour), silence])).numpy()
    start = len(silence) // HOP
    true = contour[np.minimum(np.arange(len(contour) // HOP) * HOP, len(contour) - 1)]
    inner = f0[start : start + len(true)][8:-8]
    assert (inner > 0).mean() > 0.95
    assert (np.abs(inner / true[8:-8] - 1) > 0.03)[inner > 0].mean() < 0.05
    assert (f0[: start - 12] > 0).mean() < 0.1


@pytest.mark.parametrize("name", HEAR)
@pytest.mark.parametrize("samples", [0, 1, 79, 640, 16_000])
def test_every_extractor_gives_zeros_for_silence_of_any_length(name: str, samples: int) -> None:
    f0 = OneByOne(name)(torch.zeros(samples))
    assert len(f0) == frame_count(samples)
    assert not f0.any()
    assert len(OneByOne(name)(torch.full((samples,), 0.1))) == frame_count(samples)


def test_fcpe_gives_zeros_for_silence_and_takes_any_length() -> None:
    theirs = Fcpe()
    assert not theirs(torch.zeros(SAMPLE_RATE)).any()
    assert [len(f0) for f0 in theirs.batch([torch.zeros(1), torch.zeros(800)])] == [1, 11]
