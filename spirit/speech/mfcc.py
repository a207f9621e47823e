"""Mel-frequency cepstral coefficients: what the first iteration of HuBERT learns to predict."""

from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spirit.units import SAMPLE_RATE

COEFFICIENTS = 13
STEP = SAMPLE_RATE // 100
WINDOW, FFT = SAMPLE_RATE // 40, 512


def mfcc(wave: Float[np.ndarray, " samples"], hop: int) -> Float[np.ndarray, "frames channels"]:
    """39 channels every 10 ms (13 coefficients and both differences), a hop's rows side by side.

    Frame `i` describes samples `[hop * i, hop * (i + 1))`; `hop` is a multiple of 160. The mean of
    the recording is taken away (cepstral mean normalization), which leaves out much of voice and
    channel. As in HuBERT (Hsu et al. 2021, section IV-A), whose frames are not put together.
    """
    if hop % STEP:
        raise ValueError(
            f"MFCC frames are {STEP} samples apart; a hop of {hop} samples is not a multiple of it"
        )
    from torchaudio.functional import compute_deltas

    frames = max(1, len(wave) // hop)
    margin = (FFT - STEP) // 2
    body = np.zeros(frames * hop + 2 * margin, np.float32)
    kept = wave[: frames * hop + margin]
    body[margin : margin + len(kept)] = kept
    plain = _transform()(torch.from_numpy(body)) * _lifter()[:, None]
    plain = plain - plain.mean(1, keepdim=True)
    first = compute_deltas(plain)
    stacked: np.ndarray = (
        torch.cat([plain, first, compute_deltas(first)]).T.reshape(frames, -1).numpy()
    )
    return stacked


def _lifter() -> Float[Tensor, " coefficients"]:
    """Kaldi's (and HTK's) weights, which give the higher coefficients a say in distances."""
    return 1 + 11 * torch.sin(torch.pi * torch.arange(COEFFICIENTS) / 22)


@cache
def _transform() -> Any:
    from torchaudio.transforms import MFCC

    mel = {"n_fft": FFT, "win_length": WINDOW, "hop_length": STEP, "n_mels": 40, "center": False}
    return MFCC(SAMPLE_RATE, n_mfcc=COEFFICIENTS, log_mels=True, melkwargs=mel)
