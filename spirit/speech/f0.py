"""Hearing pitch: the fundamental frequency of a voice, 200 times a second."""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from spirit.units import SAMPLE_RATE

HOP = 80
"""Samples per F0 frame: 200 frames a second. Frame `i` is centred on sample `80 * i`."""
LOWEST, HIGHEST = 50.0, 1100.0
"""The range of F0 in Hz."""


def frame_count(samples: int) -> int:
    """How many F0 frames a wave has, both ends included."""
    return samples // HOP + 1


@runtime_checkable
class F0Extractor(Protocol):
    """Anything that hears pitch: 16 kHz waves to F0 in Hz, `samples // 80 + 1` frames; 0 means
    unvoiced."""

    def __call__(self, wave: Float[Tensor, " samples"]) -> Float[Tensor, " frames"]: ...

    def batch(self, waves: Sequence[Float[Tensor, " _"]]) -> list[Float[Tensor, " _"]]:
        """The same for several waves at once; each F0 is what the wave has alone."""
        ...


class Autocorrelation:
    """F0 by normalized autocorrelation and the best path through its peaks (Boersma 1993).

    Differences to the paper: the search runs on the band below 1.8 kHz, sampled at 4 kHz; the
    autocorrelation comes from the power spectrum on a grid of half samples, which is exact for that
    band, and a parabola refines each peak; candidates are the best peak of every third of an
    octave.

    A wave is heard as a whole: how loud a frame must be to count as voiced depends on the wave's
    loudest frame.
    """

    rate = 4_000
    window = 160
    """Samples at `rate`: 40 ms, two periods of the lowest voice."""
    bands = 14

    def __init__(
        self,
        *,
        voicing: float = 0.4,
        silence: float = 0.03,
        octave: float = 0.01,
        jump: float = 0.35,
        switch: float = 0.14,
        device: torch.device | str = "cpu",
    ) -> None:
        """`voicing` is the peak from which a frame counts as voiced, `silence` the loudness
        relative to the loudest frame below which it hardly can, `octave` the preference for high
        candidates, `jump` the cost of an octave between frames and `switch` of voicing on or off
        (both for 10 ms, as in the paper)."""
        self.voicing, self.silence, self.octave = voicing, silence, octave
        self.jump, self.switch = 2 * jump, 2 * switch  # those are for 10 ms, our frames for 5
        self.device = torch.device(device)
        step = SAMPLE_RATE // self.rate
        taps = np.sinc(np.arange(-32, 33) * 2 * 1_800 / SAMPLE_RATE) * np.hamming(65)
        self._filter = torch.tensor(taps / taps.sum(), dtype=torch.float32, device=self.device)
        self._step = step
        # Lags in samples at `rate`, half a sample apart, one beyond the range on both sides for the
        # parabola.
        first = math.floor(2 * self.rate / HIGHEST) - 1
        last = math.ceil(2 * self.rate / LOWEST) + 1
        lags = torch.arange(first, last + 1, dtype=torch.float64) / 2
        self._size = 2 * self.window
        hann = torch.hann_window(self.window + 1, dtype=torch.float64)[:-1] + 1e-9
        bins = torch.arange(self._size // 2 + 1, dtype=torch.float64)
        weight = torch.full_like(bins, 2.0)
        weight[0] = weight[-1] = 1.0
        cosines = (
            weight[:, None] * (2 * torch.pi * bins[:, None] * lags / self._size).cos() / self._size
        )
        power = torch.fft.rfft(hann, n=self._size).abs().square()
        ideal = (
            power @ cosines
        ) / hann.square().sum()  # the window's own autocorrelation, divided out
        self._hann = hann.to(self.device, torch.float32)
        self._cosines = (cosines / ideal).to(self.device, torch.float32)
        self._energy = (weight / self._size).to(self.device, torch.float32)
        self._lags = lags.to(self.device, torch.float32)
        edges = torch.logspace(
            math.log2(self.rate / HIGHEST), math.log2(self.rate / LOWEST), self.bands + 1, base=2.0
        )
        self._edges = torch.searchsorted(lags.float(), edges).clamp(1, len(lags) - 2).tolist()

    def __call__(self, wave: Float[Tensor, " samples"]) -> Float[Tensor, " frames"]:
        """F0 of one wave in Hz, 0 where unvoiced."""
        return self.batch([wave])[0]

    @torch.inference_mode()
    def batch(self, waves: Sequence[Float[Tensor, " _"]]) -> list[Float[Tensor, " _"]]:
        """F0 of several waves; shorter ones are padded and do not notice."""
        if not waves:
            return []
        counts = [frame_count(len(wave)) for wave in waves]
        padded = torch.nn.utils.rnn.pad_sequence(
            [w.to(self.device) for w in waves], batch_first=True
        )
        frames = max(counts)
        low = self._decimate(padded, frames)
        loudness, peak, pitch = self._candidates(low)
        inside = (
            torch.arange(frames, device=self.device)
            < torch.tensor(counts, device=self.device)[:, None]
        )
        path = self._track(loudness, peak, pitch, inside)
        return [f0[:count] for f0, count in zip(path, counts, strict=True)]

    def _decimate(
        self, waves: Float[Tensor, "batch samples"], frames: int
    ) -> Float[Tensor, "batch low"]:
        """The band below 1.8 kHz at 4 kHz, with half a window of silence before the first and after
        the last frame's centre."""
        half = self.window // 2
        wanted = (frames - 1) * HOP // self._step + self.window
        left = half * self._step + len(self._filter) // 2
        right = (wanted - 1) * self._step + len(self._filter) - left - waves.shape[-1]
        padded = torch.nn.functional.pad(waves, (left, max(0, right)))
        taps = padded.unfold(-1, len(self._filter), self._step)[:, :wanted]
        return taps @ self._filter

    def _candidates(
        self, low: Float[Tensor, "batch low"]
    ) -> tuple[
        Float[Tensor, "batch frames"],
        Float[Tensor, "batch frames bands"],
        Float[Tensor, "batch frames bands"],
    ]:
        """RMS of every frame, and for every band of lags the height of its best peak and that
        peak's log2 F0."""
        parts = []
        for start in range(0, low.shape[1] - self.window + 1, 20 * 4_000):  # memory stays flat
            piece = low[:, start : start + 20 * 4_000 + self.window - HOP // self._step]
            parts.append(self._candidates_of(piece))
        loudness, peak, pitch = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        return loudness, peak, pitch

    def _candidates_of(self, low: Float[Tensor, "batch low"]) -> tuple[Tensor, Tensor, Tensor]:
        frames = low.unfold(-1, self.window, HOP // self._step)
        frames = (frames - frames.mean(-1, keepdim=True)) * self._hann
        spectrum = torch.view_as_real(torch.fft.rfft(frames, n=self._size))
        power = spectrum.square().sum(-1)
        energy = power @ self._energy
        height = (power @ self._cosines) / (energy[..., None] + 1e-12)
        middle, before, after = height[..., 1:-1], height[..., :-2], height[..., 2:]
        bonus = self.octave * (self._lags[1:-1] * LOWEST / self.rate).log2()
        score = torch.where((middle > before) & (middle >= after), middle - bonus, -1.0)
        best = [
            score[..., lo - 1 : max(hi, lo + 1) - 1].max(-1)
            for lo, hi in zip(self._edges, self._edges[1:], strict=False)
        ]
        peak = torch.stack([b.values for b in best], -1)
        index = torch.stack([b.indices + lo for b, lo in zip(best, self._edges, strict=False)], -1)
        # A parabola through three points; where there is no peak, the candidate is dead anyway.
        left, top, right = (height.gather(-1, index + shift) for shift in (-1, 0, 1))
        bend = (left - 2 * top + right).clamp(max=-1e-6)
        shift = ((left - right) / (2 * bend)).clamp(-0.5, 0.5)
        lag = self._lags[index] + 0.5 * shift
        raised = peak - (left - right) * shift / 4
        alive = (peak > 0) & (lag >= self.rate / HIGHEST) & (lag <= self.rate / LOWEST)
        pitch = (self.rate / lag.clamp(min=1.0)).log2()
        return energy.sqrt(), torch.where(alive, raised.clamp(max=1.0), -100.0), pitch

    def _track(
        self,
        loudness: Float[Tensor, "batch frames"],
        peak: Float[Tensor, "batch frames bands"],
        pitch: Float[Tensor, "batch frames bands"],
        inside: Bool[Tensor, "batch frames"],
    ) -> Float[Tensor, "batch frames"]:
        """The best path: strong peaks, few jumps, few changes of voicing. 0 where the path is
        unvoiced."""
        batch, frames, bands = peak.shape
        relative = loudness / loudness.amax(1, keepdim=True).clamp(min=1e-7)
        unvoiced = self.voicing + (2 - relative * (1 + self.voicing) / self.silence).clamp(min=0.0)
        local = torch.cat([peak, unvoiced[..., None]], -1)
        local = torch.where(inside[..., None], local, 0.0)
        score = local[:, 0]
        history = torch.empty((frames, batch, bands + 1), dtype=torch.long, device=peak.device)
        same = torch.eye(bands + 1, dtype=torch.bool, device=peak.device)
        for begin in range(1, frames, 4_000):
            stop = min(frames, begin + 4_000)
            here, there = pitch[:, begin:stop], pitch[:, begin - 1 : stop - 1]
            cost = torch.full(
                (batch, stop - begin, bands + 1, bands + 1), self.switch, device=peak.device
            )
            cost[..., :bands, :bands] = self.jump * (here[..., :, None] - there[..., None, :]).abs()
            cost[..., bands, bands] = 0.0
            # Past the end of a wave nothing may change, so that the path ends as it would without
            # padding.
            cost = torch.where(inside[:, begin:stop, None, None], cost, (~same) * 1e4)
            for t, price in enumerate(cost.unbind(1), begin):
                score, history[t] = (score[:, None, :] - price).max(-1)
                score = score + local[:, t]
        state = score.argmax(-1, keepdim=True)
        path = torch.empty((batch, frames), dtype=torch.long, device=peak.device)
        for t in range(frames - 1, -1, -1):
            path[:, t] = state[:, 0]
            if t:
                state = history[t].gather(-1, state)
        heard = torch.cat([pitch.exp2(), torch.zeros_like(pitch[..., :1])], -1)
        return heard.gather(-1, path[..., None])[..., 0]
