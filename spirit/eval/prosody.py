"""Whether a melody survived: F0 heard by FCPE (not by our own extractor) in both recordings."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Float

from spirit.speech.fcpe import Fcpe

SHORTEST = 20
"""Voiced frames of 5 ms below which a correlation says nothing: 0.1 s."""
GROSS = 0.2
"""An F0 that is off by more than this share is a gross error."""


@dataclass(frozen=True)
class Prosody:
    """How the F0 of a clip follows its original, frame by frame at the original's times.

    GPE is `gross_errors` over `voiced_in_both`, VDE is `voicing_error`, and FFE both kinds of wrong
    frames over all frames (Chu and Alwan 2009, "Reducing F0 Frame Error of F0 tracking algorithms
    under noisy conditions with an unvoiced/voiced classification frontend").
    """

    correlation: float | None
    """Pearson correlation of log F0 over the frames voiced in both; None if the original itself
    has less than 0.1 s of voice, 0 if only the copy lost it or does not move."""
    voicing_error: float
    """Share of the frames that are voiced in one and not in the other."""
    frames: int = 0
    voiced_in_both: int = 0
    gross_errors: int = 0
    """Frames voiced in both whose F0 is more than 20 % off."""
    squared_semitones: float = 0.0
    """The squared difference of F0, summed over the frames that are voiced in both."""


@cache
def _extractor() -> Fcpe:
    return Fcpe()


def melody(wave: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " frames"]:
    """F0 of a 16 kHz wave in Hz every 5 ms, 0 where unvoiced."""
    sound = torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))
    heard: np.ndarray = _extractor()(sound).numpy()
    return heard


def compare(
    original: Float[np.ndarray, " samples"], copy: Float[np.ndarray, " samples_of_copy"]
) -> Prosody:
    """Compare two recordings of the same length in time, both 16 kHz.

    A copy that is shorter or longer is compared as far as the original goes; what it lacks counts
    as unvoiced.
    """
    return follow(melody(original), melody(copy))


def follow(
    theirs: Float[np.ndarray, " frames"], ours: Float[np.ndarray, " frames_of_copy"]
) -> Prosody:
    """Compare two F0 contours in Hz on the same clock, 0 where unvoiced."""
    heard = np.zeros_like(theirs)
    heard[: min(len(theirs), len(ours))] = ours[: len(theirs)]
    error = float(((theirs > 0) != (heard > 0)).mean())
    both = (theirs > 0) & (heard > 0)
    a, b = np.log(theirs[both]), np.log(heard[both])
    return Prosody(
        _correlation(a, b) if (theirs > 0).sum() >= SHORTEST else None,
        error,
        frames=len(theirs),
        voiced_in_both=len(a),
        gross_errors=int((np.abs(np.exp(b - a) - 1) > GROSS).sum()),
        squared_semitones=float(((12 / np.log(2) * (b - a)) ** 2).sum()),
    )


def _correlation(a: Float[np.ndarray, " frames"], b: Float[np.ndarray, " frames"]) -> float:
    if len(a) < SHORTEST:
        return 0.0
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 1e-9 else 0.0
