"""Networks that tell made speech from real: by its periods and by its spectra.

Multi-period: HiFi-GAN (Kong et al. 2020, arXiv 2010.05646). Multi-resolution spectrogram: UnivNet
(Jang et al. 2021, arXiv 2106.07889).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

from spirit.vocoder.losses import Opinion

SLOPE = 0.1


class Period(nn.Module):
    """Hears every `period`-th sample as one short wave: what repeats at that period shows."""

    def __init__(self, period: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.period = period
        widths = [1, *channels]
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv1d(narrow, wide, 5, 3, padding=2))
            for narrow, wide in pairwise(widths)
        )
        self.post = weight_norm(nn.Conv1d(channels[-1], 1, 3, padding=1))

    def forward(self, wave: Float[Tensor, "batch samples"]) -> Opinion:
        lacking = -wave.shape[1] % self.period
        columns = functional.pad(wave, (0, lacking)).reshape(len(wave), -1, self.period)
        hidden = columns.transpose(1, 2).flatten(0, 1).unsqueeze(1)
        return _judge(hidden, self.convs, self.post)


class Spectrogram(nn.Module):
    """Looks at the log magnitude of a short-time Fourier transform of one size."""

    def __init__(self, size: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("window", torch.hann_window(size), persistent=False)
        widths = [1, *channels]
        self.convs = nn.ModuleList(
            # bins shrink by two per layer, frames stay
            weight_norm(nn.Conv2d(narrow, wide, (5, 3), (2, 1), padding=(2, 1)))
            for narrow, wide in pairwise(widths)
        )
        self.post = weight_norm(nn.Conv2d(channels[-1], 1, 3, padding=1))

    def forward(self, wave: Float[Tensor, "batch samples"]) -> Opinion:
        with torch.autocast(wave.device.type, enabled=False):
            frames = wave.float().unfold(1, self.size, self.size // 4) * self.get_buffer("window")
            spectrum = torch.fft.rfft(frames).transpose(1, 2)
            power = spectrum.real.square() + spectrum.imag.square()
            log = torch.log(torch.sqrt(power + 1e-9) + 1e-3)
        return _judge(log.unsqueeze(1), self.convs, self.post)


def _judge(hidden: Tensor, convs: nn.ModuleList, post: nn.Module) -> Opinion:
    features = []
    for conv in convs:
        hidden = functional.leaky_relu(conv(hidden), SLOPE)
        features.append(hidden)
    return post(hidden), features


class Discriminators(nn.Module):
    """All of them; each gives its scores and its features layer by layer."""

    def __init__(
        self,
        *,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        period_channels: Sequence[int] = (32, 128, 512, 1024),
        sizes: Sequence[int] = (1024, 512, 256),
        size_channels: Sequence[int] = (32, 32, 32, 32),
    ) -> None:
        super().__init__()
        self.judges = nn.ModuleList(
            [
                *(Period(period, period_channels) for period in periods),
                *(Spectrogram(size, size_channels) for size in sizes),
            ]
        )

    def forward(self, wave: Float[Tensor, "batch samples"]) -> list[Opinion]:
        return [judge(wave) for judge in self.judges]
