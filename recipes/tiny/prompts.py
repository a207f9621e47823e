"""The human voice of the corpus: the telephone prompts of Debian's asterisk-core-sounds-en-g722.

Their texts stand in `prompts.tsv`; where each word is comes from pocketsphinx's forced alignment.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TEXTS = Path(__file__).with_name("prompts.tsv")
RATE = 16_000
HELD_OUT = 10
"""One prompt of this many is kept from all training."""


@dataclass(frozen=True)
class Prompt:
    """One recording, by its path below `SOUNDS` without suffix, and what is said in it."""

    path: str
    text: str

    @property
    def id(self) -> str:
        """The name of the utterance in the corpus."""
        return "allison-" + self.path.replace("/", "-")

    @property
    def heldout(self) -> bool:
        """Whether the prompt is kept from training: one of ten, by the SHA-256 of its path."""
        return int(hashlib.sha256(self.path.encode()).hexdigest(), 16) % HELD_OUT == 0


def read_prompts(sounds: Path = SOUNDS) -> list[Prompt]:
    """The prompts of `prompts.tsv`; a ValueError where the recordings are not installed."""
    if not sounds.is_dir():
        raise ValueError(
            f"{sounds} is missing; install it with `apt-get install asterisk-core-sounds-en-g722`"
        )
    lines = TEXTS.read_text(encoding="utf-8").splitlines()
    return [Prompt(*line.split("\t")) for line in lines if line and not line.startswith("#")]


def read_wave(prompt: Prompt, sounds: Path = SOUNDS) -> Float[np.ndarray, " samples"]:
    """The recording at 16 kHz, from G.722 at 64 kbit/s."""
    from G722 import G722

    data = (sounds / f"{prompt.path}.g722").read_bytes()
    return np.asarray(G722(RATE, 64_000).decode(data), np.float32) / 32_768


class Aligner:
    """Finds each word of a known text by pocketsphinx with its own en-us model."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        self.decoder: Any = Decoder(lm=None, loglevel="FATAL")

    def align(
        self, wave: Float[np.ndarray, " samples"], text: str
    ) -> list[tuple[str, int, int]] | None:
        """(word, start, stop) in samples; None where a word is unknown or the text does not fit."""
        words = text.split()
        if any(self.decoder.lookup_word(word) is None for word in words):
            return None
        self.decoder.set_align_text(text)
        self.decoder.start_utt()
        padded = np.pad(wave, (RATE // 10, RATE // 5))
        self.decoder.process_raw((padded * 32_767).astype("<i2").tobytes(), full_utt=True)
        self.decoder.end_utt()
        if self.decoder.hyp() is None:
            return None
        frame, shift = RATE // 100, RATE // 10
        spans = []
        for found in self.decoder.seg():
            word = found.word.partition("(")[0]
            if word and word[0] not in "<[+":
                start = min(max(found.start_frame * frame - shift, 0), len(wave) - 1)
                stop = min(max((found.end_frame + 1) * frame - shift, start + 1), len(wave))
                spans.append((word, start, stop))
        return spans if [word for word, _, _ in spans] == words else None
