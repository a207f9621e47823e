"""What the vocoder learns from: spectra at several resolutions, and what discriminators say."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from spirit.units import SAMPLE_RATE

Opinion = tuple[Tensor, list[Tensor]]
"""A discriminator's scores, and its features layer by layer."""


def mel_filters(bins: int, mels: int) -> Float[np.ndarray, "mels bins"]:
    """Return triangles on the mel scale (HTK's formula) up to half the sample rate, of area one."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)
    hertz = np.linspace(0, SAMPLE_RATE / 2, bins)
    rising = (hertz - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - hertz) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0, np.minimum(rising, falling))
    filters: np.ndarray = triangles / np.maximum(triangles.sum(1, keepdims=True), 1e-8)
    return filters.astype(np.float32)


class SpectralLoss(nn.Module):
    """Distance of log magnitudes, plain and mel, at several resolutions (mean absolute difference).

    The mel distance is HiFi-GAN's, taken at every resolution; the plain log magnitude is that of
    Parallel WaveGAN (Yamamoto et al. 2020, arXiv 1910.11480).
    """

    def __init__(self, sizes: Sequence[int] = (1024, 512, 256), floor: float = 1e-3) -> None:
        super().__init__()
        self.sizes, self.floor = tuple(sizes), floor
        for size in self.sizes:
            self.register_buffer(f"window{size}", torch.hann_window(size), persistent=False)
            mels = torch.from_numpy(mel_filters(size // 2 + 1, min(80, size // 8)))
            self.register_buffer(f"mel{size}", mels, persistent=False)

    def forward(
        self, made: Float[Tensor, "batch samples"], real: Float[Tensor, "batch samples"]
    ) -> Float[Tensor, ""]:
        """Return the distance of two waves; needs at least `max(sizes)` samples."""
        total = made.new_zeros(())
        for size in self.sizes:
            mine, theirs = self.magnitude(made, size), self.magnitude(real, size)
            filters = self.get_buffer(f"mel{size}")
            total = total + self._log_distance(filters @ mine, filters @ theirs)
            total = total + 0.5 * self._log_distance(mine, theirs)
        return total / len(self.sizes)

    def magnitude(
        self, wave: Float[Tensor, "batch samples"], size: int
    ) -> Float[Tensor, "batch bins frames"]:
        """Return the short-time magnitude over windows of `size` samples, four per window."""
        window = self.get_buffer(f"window{size}")
        frames = wave.unfold(1, size, size // 4) * window
        spectrum = torch.fft.rfft(frames).transpose(1, 2)
        return torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)

    def _log_distance(self, made: Tensor, real: Tensor) -> Tensor:
        return functional.l1_loss(torch.log(made + self.floor), torch.log(real + self.floor))


def discriminator_loss(real: Sequence[Opinion], made: Sequence[Opinion]) -> Float[Tensor, ""]:
    """Return the least-squares loss: real scores one, made zero (Mao et al. 2017)."""
    losses = [
        (1 - yes).float().square().mean() + no.float().square().mean()
        for (yes, _), (no, _) in zip(real, made, strict=True)
    ]
    return torch.stack(losses).mean()


def generator_loss(made: Sequence[Opinion]) -> Float[Tensor, ""]:
    """Return the least-squares loss of the made waves: they should score one."""
    return torch.stack([(1 - score).float().square().mean() for score, _ in made]).mean()


def feature_loss(real: Sequence[Opinion], made: Sequence[Opinion]) -> Float[Tensor, ""]:
    """Return the mean distance of the discriminators' features, relative to their size."""
    losses = [
        functional.l1_loss(mine.float(), theirs.detach().float())
        / theirs.detach().float().abs().mean().clamp(min=1e-3)
        for (_, theirs_all), (_, mine_all) in zip(real, made, strict=True)
        for mine, theirs in zip(mine_all, theirs_all, strict=True)
    ]
    return torch.stack(losses).mean()
