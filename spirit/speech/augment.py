"""Worse recordings of the same speech: what makes units robust to level, noise and bandwidth."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spirit.units import SAMPLE_RATE

GAIN = (-14.0, 6.0)
"""Decibels."""
RATIO = (5.0, 35.0)
"""Decibels of speech above noise."""
COLOR = (0.0, 1.0)
"""The noise falls as frequency to minus this power: white to pink (in power, twice that)."""
HIGHPASS, LOWPASS = (30.0, 400.0), (2_800.0, 8_000.0)
"""Hertz where the band begins and ends."""


def augment(
    wave: Float[Tensor, "batch samples"], rng: np.random.Generator, share: float
) -> Float[Tensor, "batch samples"]:
    """Crops at other levels, a `share` of them with colored noise and a limited band as well."""
    gain = 10 ** (rng.uniform(*GAIN, size=(len(wave), 1)) / 20)
    loud = wave * torch.from_numpy(gain).float()
    worse = torch.from_numpy(np.flatnonzero(rng.random(len(wave)) < share))
    if len(worse):
        loud[worse] = _degrade(loud[worse], rng)
    return loud


def _degrade(
    wave: Float[Tensor, "batch samples"], rng: np.random.Generator
) -> Float[Tensor, "batch samples"]:
    batch, samples = wave.shape
    hertz = torch.fft.rfftfreq(samples, 1 / SAMPLE_RATE)

    def draw(limits: tuple[float, float]) -> Float[Tensor, "batch 1"]:
        return torch.from_numpy(rng.uniform(*limits, size=(batch, 1))).float()

    # The noise is drawn and colored in the spectrum.
    parts = torch.from_numpy(rng.standard_normal((batch, len(hertz), 2), dtype=np.float32))
    noise = torch.view_as_complex(parts) * (-draw(COLOR) * hertz.clamp(min=50.0).log()).exp()
    speech = torch.fft.rfft(wave)
    power = speech.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
    low, high = draw(HIGHPASS), draw(LOWPASS)
    band = ((1 + (low / hertz.clamp(min=1.0)) ** 8) * (1 + (hertz / high) ** 16)).rsqrt()
    mixed = (speech + noise * power / 10 ** (draw(RATIO) / 20)) * band
    degraded: Tensor = torch.fft.irfft(mixed, samples)
    return degraded
