"""Features of a whole corpus, held in memory as 16-bit samples (115 MB an hour)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from spirit.audio import read_audio
from spirit.data.corpus import Utterance
from spirit.engine import main_process
from spirit.speech.encoder import hear
from spirit.speech.hubert import Hubert
from spirit.speech.mfcc import mfcc
from spirit.speech.pretrained import Pretrained, in_bf16
from spirit.units import SAMPLE_RATE

Wave = Int[np.ndarray, " _"]
Digest = Callable[[Float[Tensor, "frames channels"]], np.ndarray]

TOGETHER = 64
"""Recordings from which batches of similar length are made."""


def load_waves(utterances: Sequence[Utterance], told: str = "reading") -> list[Wave]:
    """Read recordings as 16-bit samples at 16 kHz; a bar shows what is `told`, if anything is."""
    bar = tqdm(utterances, desc=told, unit="file", disable=not (told and main_process()))
    return [to_16_bit(read_audio(u.audio)) for u in bar]


def to_16_bit(sound: Float[np.ndarray, " samples"]) -> Wave:
    """Samples between -1 and 1 as a corpus is held; what is louder is clipped."""
    wave: Wave = np.rint(sound.clip(-1, 1) * 32_767).astype(np.int16)
    return wave


def from_16_bit(wave: Wave) -> Float[np.ndarray, " samples"]:
    """Samples between -1 and 1, as a network hears them."""
    sound: np.ndarray = wave.astype(np.float32) / np.float32(32_768)
    return sound


def draw(lengths: Sequence[int], seconds: float, seed: int) -> Int[np.ndarray, " drawn"]:
    """Which recordings to take, in random order, to have so many seconds; at least one."""
    order: np.ndarray = np.random.default_rng(seed).permutation(len(lengths))
    ends = np.cumsum([lengths[i] for i in order])
    return order[: 1 + int(np.searchsorted(ends, seconds * SAMPLE_RATE))]


class Listener:
    """The features of a HuBERT, or MFCC where there is none."""

    def __init__(self, hubert: Hubert | Pretrained | None, hop: int, *, bf16: bool = False) -> None:
        """`hop` is that of the MFCC; with `bf16` a copy of HuBERT computes in bfloat16."""
        self.hubert = in_bf16(hubert) if hubert is not None and bf16 else hubert
        self.hop = hop

    def __call__(self, waves: Sequence[Wave], digest: Digest) -> list[np.ndarray]:
        """What `digest` makes of each recording's features, a long one window by window."""
        digests: list[np.ndarray] = []
        with tqdm(
            total=len(waves), desc="listening", unit="file", disable=not main_process()
        ) as bar:
            for first in range(0, len(waves), TOGETHER):
                some = [from_16_bit(wave) for wave in waves[first : first + TOGETHER]]
                digests += self.listen(some, digest)
                bar.update(len(some))
        return digests

    def listen(self, waves: Sequence[Float[np.ndarray, " _"]], digest: Digest) -> list[np.ndarray]:
        """The same for a few recordings, without a word."""
        if self.hubert is None:
            return [digest(torch.from_numpy(mfcc(wave, self.hop))) for wave in waves]
        heard = hear(self.hubert, waves, digest)
        return [np.concatenate(parts) for parts in heard]


def features(rows: Float[Tensor, "frames channels"]) -> Float[np.ndarray, "frames channels"]:
    """The digest that keeps everything."""
    kept: np.ndarray = rows.cpu().numpy()
    return kept
