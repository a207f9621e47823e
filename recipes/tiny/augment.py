"""Changed copies of training recordings: another speed, a narrower band, noise."""

import random
from dataclasses import dataclass

import numpy as np
import soxr
from jaxtyping import Float

RATE = 16_000


@dataclass(frozen=True)
class Change:
    """What is done to a copy, in this order; None leaves the step out."""

    speed: float
    """Faster and higher by this factor, as when a tape runs faster."""
    band: tuple[int, int] | None
    """Lowest and highest frequency that pass, in Hz."""
    noise: str | None
    """white, pink or hum."""
    snr: float
    """Speech over noise in dB."""
    gain: float
    """Loudness by this factor."""
    seed: int
    """Of the noise."""


def draw_change(rng: random.Random) -> Change:
    """Draw a change that leaves the style what it was: the speed stays within 6 %."""
    return Change(
        speed=round(rng.uniform(0.94, 1.06), 3),
        band=(rng.randrange(50, 300, 10), rng.randrange(3400, 7000, 100))
        if rng.random() < 0.5
        else None,
        noise=rng.choice(("white", "pink", "hum")) if rng.random() < 0.8 else None,
        snr=round(rng.uniform(8, 30), 1),
        gain=round(rng.uniform(0.4, 1.0), 2),
        seed=rng.randrange(2**32),
    )


def apply(wave: Float[np.ndarray, " samples"], change: Change) -> Float[np.ndarray, " changed"]:
    """The changed copy, 16 kHz; its times are those of the original over `change.speed`."""
    changed = soxr.resample(wave, RATE * change.speed, RATE, quality="HQ")
    if change.band:
        changed = _band(changed, change.band)
    if change.noise:
        noise = draw_noise(len(changed), change.noise, np.random.default_rng(change.seed))
        power, level = np.mean(changed**2), np.mean(noise**2)
        changed = changed + noise * np.sqrt(power / (level * 10 ** (change.snr / 10)))
    changed = changed * change.gain
    return (changed / max(1.0, float(np.abs(changed).max()))).astype(np.float32)


def _band(
    wave: Float[np.ndarray, " samples"], band: tuple[int, int]
) -> Float[np.ndarray, " samples"]:
    """Let one band pass, with flanks a tenth of an octave wide."""
    frequencies = np.fft.rfftfreq(len(wave), 1 / RATE)
    octaves = np.log2(np.maximum(frequencies, 1))
    low, high = np.log2(band)
    gain = np.clip((octaves - low) / 0.1 + 1, 0, 1) * np.clip((high - octaves) / 0.1 + 1, 0, 1)
    passed: np.ndarray = np.fft.irfft(np.fft.rfft(wave) * gain, len(wave))
    return passed.astype(np.float32)


def draw_noise(samples: int, kind: str, rng: np.random.Generator) -> Float[np.ndarray, " samples"]:
    """White or pink noise or the hum of mains (`hum`), at no particular level."""
    if kind == "hum":
        times = np.arange(samples) / RATE
        mains = rng.choice((50.0, 60.0))
        partials = (
            np.sin(2 * np.pi * mains * k * times + rng.uniform(0, 6.3)) / k for k in range(1, 8)
        )
        return sum(partials, np.zeros(samples)) + 0.1 * rng.standard_normal(samples)
    noise: np.ndarray = rng.standard_normal(samples)
    if kind == "pink":
        spectrum = np.fft.rfft(noise)
        noise = np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 10), samples)
    return noise
