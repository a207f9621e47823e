"""The spectral envelope of speech in a few numbers, and how far two of them are apart."""

from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from spirit.units import SAMPLE_RATE

STEP = SAMPLE_RATE // 100
"""Samples between two frames."""
LONGEST = 6_000
"""Frames that are aligned at once: the table of an alignment grows with their square."""
_WINDOW, _FFT, _BANDS, _KEPT = SAMPLE_RATE // 40, 512, 40, 14

Wave = Float[np.ndarray, " _"]
Cepstra = Float[np.ndarray, "_ 14"]
Path = Int[np.ndarray, "_ 2"]
"""Frames of a recording and of its copy that belong together, in order."""


def cepstra(wave: Wave) -> Cepstra:
    """Loudness and 13 coefficients of the mel spectrum, every 10 ms.

    In decibels: the distance of two frames without the loudness is the root mean square of the
    difference of their smoothed spectra, which is what mel cepstral distortion tells (Kubichek
    1993, "Mel-cepstral distance measure for objective speech quality assessment").
    """
    padded = np.pad(np.ascontiguousarray(wave, np.float32), (0, max(0, _FFT - len(wave))))
    frames: np.ndarray = _transform()(torch.from_numpy(padded)).T.numpy()
    return frames * np.float32(10 / np.log(10) / np.sqrt(_BANDS))


def align(original: Cepstra, copy: Cepstra) -> Path:
    """Dynamic time warping by the distance of the envelopes.

    Recordings over a minute are aligned piece by piece: pieces at the same share of both belong
    together.
    """
    from librosa.sequence import dtw

    pieces = -(-max(len(original), len(copy)) // LONGEST)
    borders = [
        np.linspace(0, len(side), min(pieces, len(side)) + 1).astype(int)
        for side in (original, copy)
    ]
    paths = []
    for n in range(min(map(len, borders)) - 1):
        spans = [slice(side[n], side[n + 1]) for side in borders]
        sides = [f[span, 1:].T for f, span in zip((original, copy), spans, strict=True)]
        _, path = dtw(*sides)
        paths.append(path[::-1] + [span.start for span in spans])
    return np.concatenate(paths)


def distortion(original: Cepstra, copy: Cepstra, path: Path) -> float:
    """Mel cepstral distortion in dB: the mean distance along an alignment."""
    apart = original[path[:, 0], 1:] - copy[path[:, 1], 1:]
    return float(np.linalg.norm(apart, axis=1).mean())


def spoken_seconds(frames: Cepstra, quiet: float = 40.0) -> float:
    """From the first to the last frame that is at most `quiet` dB below the loudest."""
    loud = frames[:, 0]
    found = np.flatnonzero(loud >= loud.max() - quiet)
    return float(found[-1] - found[0] + 1) * STEP / SAMPLE_RATE


@cache
def _transform() -> Any:
    from torchaudio.transforms import MFCC

    mel = {"n_fft": _FFT, "win_length": _WINDOW, "hop_length": STEP, "n_mels": _BANDS}
    return MFCC(SAMPLE_RATE, n_mfcc=_KEPT, log_mels=True, melkwargs=mel)
