"""Hearing pitch: the fundamental frequency of a voice, 200 times a second."""

import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from spirit.units import SAMPLE_RATE

HOP = 80
"""Samples per F0 frame: 200 frames a second. Frame `i` is centred on sample `80 * i`."""
LOWEST, HIGHEST = 50.0, 1100.0
"""The range of F0 in Hz."""
TILE = (64_000, 1_000)
"""Frames whose candidates are found at once, elsewhere and on a CPU, whose caches hold these."""
CELLS = (1 << 24, 1 << 18)
"""Costs of going from a state to a state that are at hand at once, likewise."""


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
        """F0 of several waves, each the same as alone: only the steps of the best path are taken
        together."""
        if not waves:
            return []
        counts = [frame_count(len(wave)) for wave in waves]
        lows = [
            self._decimate(wave.to(self.device), count)
            for wave, count in zip(waves, counts, strict=True)
        ]
        return self._track(*self._candidates(lows), counts)

    def _decimate(self, wave: Float[Tensor, " samples"], frames: int) -> Float[Tensor, " low"]:
        """The band below 1.8 kHz at 4 kHz, with half a window of silence before the first and after
        the last frame's centre."""
        half = self.window // 2
        wanted = (frames - 1) * HOP // self._step + self.window
        left = half * self._step + len(self._filter) // 2
        right = (wanted - 1) * self._step + len(self._filter) - left - len(wave)
        padded = torch.nn.functional.pad(wave, (left, max(0, right)))
        return padded.unfold(0, len(self._filter), self._step)[:wanted] @ self._filter

    def _candidates(
        self, lows: Sequence[Float[Tensor, " _"]]
    ) -> tuple[
        Float[Tensor, " frames"], Float[Tensor, "frames bands"], Float[Tensor, "frames bands"]
    ]:
        """RMS of every frame of one wave after the other, and for every band of lags the height of
        its best peak and that peak's log2 F0."""
        most = TILE[self.device.type == "cpu"]
        tiles: list[list[Tensor]] = [[]]
        room = most
        for low in lows:
            frames = low.unfold(0, self.window, HOP // self._step)
            for piece in (frames[start : start + most] for start in range(0, len(frames), most)):
                if len(piece) > room:
                    tiles.append([])
                    room = most
                tiles[-1].append(piece)
                room -= len(piece)
        parts = [self._candidates_of(torch.cat(tile)) for tile in tiles]
        loudness, peak, pitch = (torch.cat(part) for part in zip(*parts, strict=True))
        return loudness, peak, pitch

    def _candidates_of(
        self, frames: Float[Tensor, "frames window"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        frames = (frames - frames.mean(-1, keepdim=True)) * self._hann
        spectrum = torch.fft.rfft(frames, n=self._size)
        power = spectrum.real.square() + spectrum.imag.square()
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
        loudness: Float[Tensor, " frames"],
        peak: Float[Tensor, "frames bands"],
        pitch: Float[Tensor, "frames bands"],
        counts: Sequence[int],
    ) -> list[Float[Tensor, " _"]]:
        """The best path through each wave: strong peaks, few jumps, few changes of voicing. 0 where
        the path is unvoiced."""
        lengths = torch.tensor(counts, device=loudness.device)
        loudest = torch.stack([part.amax() for part in loudness.split_with_sizes(counts)]).clamp(
            min=1e-7
        )
        relative = loudness / loudest.repeat_interleave(lengths)
        unvoiced = self.voicing + (2 - relative * (1 + self.voicing) / self.silence).clamp(min=0.0)
        # Side by side; what comes behind a wave's last frame has no say, its path is followed from
        # that frame.
        side = torch.nn.utils.rnn.pad_sequence
        local = side([*torch.cat([peak, unvoiced[:, None]], -1).split_with_sizes(counts)])
        height = side([*pitch.split_with_sizes(counts)])
        frames, batch, states = local.shape
        scores, history = torch.empty_like(local), np.empty(local.shape, np.uint8)
        scores[0] = local[0]
        together = max(1, CELLS[self.device.type == "cpu"] // (batch * states * states))
        for begin in range(1, frames, together):
            stop = min(begin + together, frames)
            span, before = slice(begin, stop), slice(begin - 1, stop - 1)
            cost = self._costs(height[before], height[span])
            _step(scores[begin - 1], cost, local[span], scores[span])
            history[span] = _came_from(scores[before], cost).cpu().numpy()
        heard = torch.cat([pitch.exp2(), torch.zeros_like(pitch[:, :1])], -1)
        ends = scores[lengths - 1, torch.arange(batch, device=scores.device)].argmax(-1).tolist()
        paths = [
            _follow(end, history[:count, wave])
            for wave, (end, count) in enumerate(zip(ends, counts, strict=True))
        ]
        path = torch.from_numpy(np.concatenate(paths)).to(heard.device, torch.long)
        return list(heard.gather(-1, path[:, None])[:, 0].split_with_sizes(counts))

    def _costs(
        self, there: Float[Tensor, "steps batch bands"], here: Float[Tensor, "steps batch bands"]
    ) -> Float[Tensor, "steps states batch states"]:
        """What it costs to go from each state to each; the last one is unvoiced."""
        steps, batch, bands = here.shape
        cost = here.new_full((steps, bands + 1, batch, bands + 1), self.switch)
        octaves = (here[:, None] - there.transpose(1, 2)[..., None]).abs_()
        torch.mul(octaves, self.jump, out=cost[:, :bands, :, :bands])
        cost[:, bands, :, bands] = 0.0
        return cost


def _step(
    score: Float[Tensor, "batch states"],
    cost: Float[Tensor, "steps states batch states"],
    local: Float[Tensor, "steps batch states"],
    scores: Float[Tensor, "steps batch states"],
) -> None:
    """Fill in the best score of every state in every step, from that in the step before."""
    if score.device.type != "cpu":
        for price, here, row in zip(cost, local, scores, strict=True):
            torch.add((score.T[..., None] - price).amax(0), here, out=row)
            score = row
        return
    # So little to compute in a step that torch takes thrice the time of numpy to ask for it.
    before, gone = score.numpy(), np.empty(cost.shape[1:], np.float32)
    for price, here, row in zip(cost.numpy(), local.numpy(), scores.numpy(), strict=True):
        np.subtract(before.T[..., None], price, out=gone)
        np.maximum.reduce(gone, axis=0, out=row)
        np.add(row, here, out=row)
        before = row


def _came_from(
    scores: Float[Tensor, "steps batch states"], cost: Float[Tensor, "steps states batch states"]
) -> UInt8[Tensor, "steps batch states"]:
    """The best state to have come from, the first where several are; `argmax` over any but the last
    axis takes ten times as long."""
    gone = scores.transpose(1, 2)[..., None] - cost
    best = gone.amax(1)
    found = torch.zeros_like(best, dtype=torch.uint8)
    for state in range(cost.shape[1] - 1, 0, -1):
        found.masked_fill_(gone[:, state] == best, state)
    return found.masked_fill_(gone[:, 0] == best, 0)


def _follow(
    state: int, history: UInt8[np.ndarray, "frames states"]
) -> UInt8[np.ndarray, " frames"]:
    """The path to the state in which a wave ends."""
    frames, states = history.shape
    table, path = history.tobytes(), bytearray(frames)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state = table[frame * states + state]  # of the first frame it means nothing
    return np.frombuffer(path, np.uint8)
