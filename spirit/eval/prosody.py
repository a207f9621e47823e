"""Whether a melody survived: F0 heard by FCPE (not by our own extractor) in both recordings."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float

from spirit.speech.fcpe import Fcpe

SHORTEST = 20
"""Voiced frames of 5 ms below which a correlation says nothing: 0.1 s."""


@dataclass(frozen=True)
class Prosody:
    """How the F0 of a clip follows its original, frame by frame at the original's times."""

    correlation: float | None
    """Pearson correlation of log F0 over the frames voiced in both; None if the original itself
    has less than 0.1 s of voice, 0 if only the copy lost it or does not move."""
    voicing_error: float
    """Share of the frames that are voiced in one and not in the other."""


@cache
def _extractor() -> Fcpe:
    return Fcpe()


def compare(
    original: Float[np.ndarray, " samples"], copy: Float[np.ndarray, " samples_of_copy"]
) -> Prosody:
    """Compare two recordings of the same length in time, both 16 kHz.

    A copy that is shorter or longer is compared as far as the original goes; what it lacks counts
    as unvoiced.
    """
    theirs, ours = (
        _extractor()(torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))).numpy()
        for wave in (original, copy)
    )
    return follow(theirs, ours)


def follow(
    theirs: Float[np.ndarray, " frames"], ours: Float[np.ndarray, " frames_of_copy"]
) -> Prosody:
    """Compare two F0 contours in Hz on the same clock, 0 where unvoiced."""
    heard = np.zeros_like(theirs)
    heard[: min(len(theirs), len(ours))] = ours[: len(theirs)]
    error = float(((theirs > 0) != (heard > 0)).mean())
    if (theirs > 0).sum() < SHORTEST:
        return Prosody(None, error)
    both = (theirs > 0) & (heard > 0)
    if both.sum() < SHORTEST:
        return Prosody(0.0, error)
    a, b = np.log(theirs[both]), np.log(heard[both])
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return Prosody(float(a @ b) / scale if scale > 1e-9 else 0.0, error)
