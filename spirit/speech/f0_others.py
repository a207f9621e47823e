"""F0 by programs that phoneticians know, behind the same Protocol as our own: on the CPU, one wave
at a time."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spirit.speech.f0 import HIGHEST, HOP, LOWEST, frame_count
from spirit.units import SAMPLE_RATE

MARGIN = 800
"""Samples of silence put before and after a wave, so that the first and last frame are heard too.
"""


class OneByOne:
    """An F0 extractor of somebody else: `HEAR` has those that are known."""

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        """`name` is a key of `HEAR`; F0 is put on `device`, and computed on the CPU."""
        self._hear = HEAR[name]
        self.device = torch.device(device)

    def __call__(self, wave: Float[Tensor, " samples"]) -> Float[Tensor, " frames"]:
        """F0 of one wave in Hz, 0 where unvoiced."""
        frames = frame_count(len(wave))
        f0 = np.zeros(frames, np.float32)
        samples = wave.detach().cpu().numpy().astype(np.float64)
        if samples.any():
            heard = self._hear(np.pad(samples, MARGIN))[MARGIN // HOP :][:frames]
            known = np.isfinite(heard) & (heard >= LOWEST) & (heard <= HIGHEST)
            f0[: len(heard)] = np.where(known, heard, 0.0)
        return torch.from_numpy(f0).to(self.device)

    def batch(self, waves: Sequence[Float[Tensor, " _"]]) -> list[Float[Tensor, " _"]]:
        """F0 of several waves, one by one."""
        return [self(wave) for wave in waves]


def _pyin(wave: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " frames"]:
    """Probabilistic YIN (Mauch and Dixon 2014), by librosa."""
    import librosa

    f0: np.ndarray = librosa.pyin(
        wave,
        fmin=LOWEST,
        fmax=HIGHEST,
        sr=SAMPLE_RATE,
        frame_length=1_024,
        hop_length=HOP,
        fill_na=0.0,
    )[0]
    return f0


def _harvest(wave: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " frames"]:
    """Harvest (Morise 2017), by pyworld."""
    import pyworld

    f0: np.ndarray = pyworld.harvest(
        wave, SAMPLE_RATE, f0_floor=LOWEST, f0_ceil=HIGHEST, frame_period=1_000 * HOP / 16_000
    )[0]
    return f0


def _praat(wave: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " frames"]:
    """Autocorrelation (Boersma 1993), by Praat."""
    import parselmouth

    step = HOP / SAMPLE_RATE
    pitch = parselmouth.Sound(wave, SAMPLE_RATE).to_pitch_ac(
        time_step=step, pitch_floor=LOWEST, pitch_ceiling=HIGHEST
    )
    # Praat puts its frames in the middle of a wave; ours lie on multiples of the step.
    places = np.rint((step * np.arange(frame_count(len(wave))) - pitch.xs()[0]) / step)
    heard = pitch.selected_array["frequency"]
    inside = (places >= 0) & (places < len(heard))
    f0: np.ndarray = np.where(inside, heard[places.astype(int).clip(0, len(heard) - 1)], 0.0)
    return f0


HEAR: dict[str, Callable[[Float[np.ndarray, " _"]], Float[np.ndarray, " _"]]] = {
    "pyin": _pyin,
    "harvest": _harvest,
    "praat": _praat,
}
"""16 kHz wave to F0 in Hz at every `HOP` samples from the first on; 0 or NaN is unvoiced."""
