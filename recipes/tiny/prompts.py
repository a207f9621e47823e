"""The human voice of the corpus: the telephone prompts of Debian's asterisk-core-sounds-en-g722.

Their texts stand in `prompts.tsv`; where each word is comes from pocketsphinx's forced alignment.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
TEXTS = Path(__file__).with_name("prompts.tsv")
RATE = 16_000
Span = tuple[str, int, int]
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
        """Whether the prompt is kept from training: one of ten, by the SHA-256 of its path, unless
        another one that is not says the same."""
        return _drawn(self.path) and self.text not in _said_in_training()


def _drawn(path: str) -> bool:
    return int(hashlib.sha256(path.encode()).hexdigest(), 16) % HELD_OUT == 0


@cache
def _said_in_training() -> frozenset[str]:
    prompts = read_prompts(sounds=None)
    return frozenset(prompt.text for prompt in prompts if not _drawn(prompt.path))


def read_prompts(sounds: Path | None = SOUNDS) -> list[Prompt]:
    """The prompts of `prompts.tsv`; a ValueError where their recordings are missing.

    `sounds=None` asks for the texts alone.
    """
    if sounds and not sounds.is_dir():
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


@dataclass(frozen=True)
class Aligned:
    """Where the words and the phones of a recording are, pauses among the phones."""

    words: list[Span]
    phones: list[Span]


class Aligner:
    """Finds each word and phone of a known text by pocketsphinx with its own en-us model.

    `alone` is how flite says each word by itself: of words that pocketsphinx does not know, and the
    names that phones get (pocketsphinx's dictionary has no weak vowels).
    """

    def __init__(self, alone: Mapping[str, Sequence[str]]) -> None:
        from pocketsphinx import Decoder

        self.alone = alone
        self.decoder: Any = Decoder(lm=None, loglevel="FATAL")

    def align(self, wave: Float[np.ndarray, " samples"], text: str) -> Aligned | None:
        """Words and phones as (name, start, stop) in samples; None where the text does not fit."""
        for word in set(text.split()):
            if self.decoder.lookup_word(word) is None:
                self.decoder.add_word(word, " ".join(map(_strong, self.alone[word])))
        self.decoder.set_align_text(text)
        padded = np.pad(wave, (RATE // 10, RATE // 5))
        data = (padded * 32_767).astype("<i2").tobytes()
        try:
            self._decode(data)
            if self.decoder.hyp() is None:
                return None
            self.decoder.set_alignment()
            self._decode(data)
        except RuntimeError:  # the text cannot be what is said
            return None
        words: list[Span] = []
        phones: list[Span] = []
        for found in self.decoder.get_alignment() or ():
            word = found.name.partition("(")[0]
            parts = [self._place(part, len(wave)) for part in found]
            if word[0] in "<[+":
                phones += [("pau", start, stop) for _, start, stop in parts if stop > start]
                continue
            names = _weakened([name for name, _, _ in parts], self.alone[word])
            phones += [(name, *part[1:]) for name, part in zip(names, parts, strict=True)]
            words.append((word, parts[0][1], parts[-1][2]))
        return Aligned(words, phones) if [word for word, _, _ in words] == text.split() else None

    def _decode(self, data: bytes) -> None:
        self.decoder.start_utt()
        self.decoder.process_raw(data, full_utt=True)
        self.decoder.end_utt()

    @staticmethod
    def _place(part: Any, samples: int) -> Span:
        """Where a phone is, without the padding."""
        frame, shift = RATE // 100, RATE // 10
        start = min(max(part.start * frame - shift, 0), samples)
        stop = min(max((part.start + part.duration) * frame - shift, start), samples)
        return part.name, start, stop


def _strong(phone: str) -> str:
    """A phone as pocketsphinx's dictionary writes it: weak vowels as their strong sisters."""
    return "AH" if phone == "ax" else phone.upper()


def _weakened(phones: Sequence[str], told: Sequence[str]) -> list[str]:
    """Phones by flite's names; a vowel is weak where flite says the word with a weak one there."""
    weak = [name == "ax" for name in told] if len(told) == len(phones) else [False] * len(phones)
    return [
        "ax" if name == "AH" and here else name.lower()
        for name, here in zip(phones, weak, strict=True)
    ]
