"""Recordings made worse in ways that leave the words alone, one way at a time.

The ways of Gat et al. 2023, "Augmentation invariant discrete representation for generative spoken
language modeling": noise, rooms and tempo; and the level and band of a poor line.
"""

from collections.abc import Callable, Collection, Mapping

import numpy as np
import torch
from jaxtyping import Float

from spirit.speech.augment import COLOR, GAIN, HIGHPASS, LOWPASS
from spirit.units import SAMPLE_RATE

Wave = Float[np.ndarray, " _"]

RATIO = (5.0, 15.0)
"""Decibels of speech above noise."""
SPEED = (0.8, 1.25)
"""Times as fast."""
ROOM = (0.1, 0.7)
"""Seconds in which the sound of a room falls by 60 dB."""
DIRECT = (0.0, 12.0)
"""Decibels of the direct sound above what the room returns."""
FIRST = 0.003
"""Seconds until the first echo."""
SPECTRUM, STEP = 512, 128
"""Samples of a spectrum of the phase vocoder (32 ms, two or three periods of a voice), and from one
to the next."""


def stretch(wave: Wave, rng: np.random.Generator) -> Wave:
    """Another tempo at the same pitch, by a phase vocoder; the wave gets another length."""
    import torchaudio.functional

    speed = np.exp(rng.uniform(*np.log(SPEED)))
    window = torch.hann_window(SPECTRUM)
    spectra = torch.stft(
        torch.from_numpy(wave), SPECTRUM, STEP, window=window, pad_mode="constant",
        return_complex=True,
    )  # fmt: skip
    advance = torch.linspace(0, np.pi * STEP, SPECTRUM // 2 + 1)[:, None]
    other = torchaudio.functional.phase_vocoder(spectra, speed, advance)
    samples = max(1, round(len(wave) / speed))
    stretched: Wave = torch.istft(other, SPECTRUM, STEP, window=window, length=samples).numpy()
    return stretched


def reverberate(wave: Wave, rng: np.random.Generator) -> Wave:
    """A room: noise that dies away exponentially, behind the direct sound, which stays in time."""
    seconds, direct = rng.uniform(*ROOM), rng.uniform(*DIRECT)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    echo = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds) * (time >= FIRST)
    echo *= 10 ** (-direct / 20) / np.linalg.norm(echo)
    echo[0] = 1.0
    size = 1 << (len(wave) + len(echo) - 1).bit_length()
    heard = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(echo, size))[: len(wave)]
    return _as_loud(heard, wave)


def noise(wave: Wave, rng: np.random.Generator) -> Wave:
    """Noise from white to pink behind the speech."""
    size = _even(len(wave))
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    parts = rng.standard_normal((2, len(hertz)))
    color = np.maximum(hertz, 50.0) ** -rng.uniform(*COLOR)
    sound = np.fft.irfft((parts[0] + 1j * parts[1]) * color, size)[: len(wave)]
    power = np.linalg.norm(wave) / max(float(np.linalg.norm(sound)), 1e-9)
    noisy: Wave = (wave + sound * power * 10 ** (-rng.uniform(*RATIO) / 20)).astype(np.float32)
    return noisy


def band(wave: Wave, rng: np.random.Generator) -> Wave:
    """A line that lets only some of the spectrum through."""
    size = _even(len(wave))
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    low, high = rng.uniform(*HIGHPASS), rng.uniform(*LOWPASS)
    open_ = ((1 + (low / np.maximum(hertz, 1.0)) ** 8) * (1 + (hertz / high) ** 16)) ** -0.5
    narrow: Wave = np.fft.irfft(np.fft.rfft(wave, size) * open_, size)[: len(wave)]
    return narrow.astype(np.float32)


def level(wave: Wave, rng: np.random.Generator) -> Wave:
    """Louder or softer."""
    return wave * np.float32(10 ** (rng.uniform(*GAIN) / 20))


WAYS: Mapping[str, Callable[[Wave, np.random.Generator], Wave]] = {
    "stretch": stretch,
    "reverb": reverberate,
    "noise": noise,
    "band": band,
    "level": level,
}
"""In the order in which they happen to a voice: the speaker's tempo, the room, what else is heard
there, the line."""


def distort(wave: Wave, rng: np.random.Generator, ways: Collection[str], share: float) -> Wave:
    """Any of the `ways`, each with probability `share`."""
    for name, way in WAYS.items():
        if name in ways and rng.random() < share:
            wave = way(wave, rng)
    return wave


def _as_loud(wave: Float[np.ndarray, " samples"], other: Wave) -> Wave:
    heard = max(float(np.linalg.norm(wave)), 1e-9)
    same: Wave = (wave * (float(np.linalg.norm(other)) / heard)).astype(np.float32)
    return same


def _even(samples: int) -> int:
    """A length with small factors, which transforms are fast for, a thousandth longer or so."""
    step = 1 << max(1, samples.bit_length() - 8)
    return -(-samples // step) * step
