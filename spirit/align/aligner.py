"""What an aligner is, why it may refuse, and how its words come to spell a text."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from spirit.audio import LATE
from spirit.units import SAMPLE_RATE, Word

Wave = Float[np.ndarray, " _"]

Reason = Literal[
    "recording",  # it is missing, or another one than was tokenized
    "too long",
    "unknown word",  # no pronunciation, or letters that the model does not have
    "not found",  # the words do not fit the sound
    "no times",  # there are none for this id
    "bad times",  # out of order, or beyond the recording
    "other words",  # the times are of other words than the text
    "score",  # a word below the gate
]


class Unaligned(ValueError):
    """An utterance that keeps no words: the kind of reason, and what exactly."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@runtime_checkable
class Aligner(Protocol):
    """Finds when words were said. The same utterance has the same times, whatever came before."""

    gate: float
    """The score below which a word is not to be trusted, by default."""

    @property
    def settings(self) -> Mapping[str, str]:
        """Everything that the times depend on; alignments with other settings are done again."""

    def __call__(self, id: str, words: Sequence[str], hear: Callable[[], Wave]) -> list[Word]:
        """The times and scores of `words`, which all have a sound, in samples at 16 kHz.

        `hear` gives the 16 kHz recording to those that need it. Raises `Unaligned`.
        """


def sounds(word: str) -> bool:
    """Whether there is anything to say in a word: a dash between spaces is none."""
    return any(character.isalnum() for character in word)


def plain(word: str) -> str:
    """What two spellings of a word have in common: letters and digits, whatever their case."""
    folded = unicodedata.normalize("NFKC", word).casefold()
    return "".join(character for character in folded if character.isalnum())


def spell(text: str, found: Sequence[Word]) -> tuple[Word, ...]:
    """What was found, spelled as the words of `text`, one for each of them and in their order.

    Case and punctuation may differ. A word without a sound gets no time of its own: it lies where
    the word before it ends (the first ones: where the first sound begins). Raises `Unaligned` if
    the words are others.
    """
    words, heard = text.split(), [word for word in found if sounds(word.text)]
    said = [word for word in words if sounds(word)]
    for number, (wanted, word) in enumerate(zip(said, heard, strict=False), start=1):
        if plain(wanted) != plain(word.text):
            detail = f"word {number} is {word.text!r} but the text says {wanted!r}"
            raise Unaligned("other words", detail)
    if len(said) != len(heard):
        raise Unaligned("other words", f"{len(heard)} words but the text has {len(said)}")
    if not heard:
        raise Unaligned("unknown word", f"nothing in {text!r} has a sound")
    spelled: list[Word] = []
    following = iter(heard)
    before = replace(heard[0], stop=heard[0].start)
    for written in words:
        here = next(following) if sounds(written) else replace(before, start=before.stop)
        before = replace(here, text=written)
        spelled.append(before)
    return tuple(spelled)


def check(words: Sequence[Word], samples: int) -> tuple[Word, ...]:
    """Words in order of time, inside a recording of so many samples; what is a little late is cut.

    Raises `Unaligned` for what no recording can hold.
    """
    for word in words:
        if not 0 <= word.start <= word.stop:
            detail = f"{word.text!r} lies at {_seconds(word.start)}..{_seconds(word.stop)}"
            raise Unaligned("bad times", detail)
        if not 0 <= word.score <= 1:
            raise Unaligned("bad times", f"the score of {word.text!r} is {word.score}, not 0 to 1")
    for before, after in pairwise(words):
        if after.start < before.start or after.stop < before.stop:
            detail = f"{after.text!r} at {_seconds(after.start)} is out of order"
            raise Unaligned("bad times", detail)
    if words and words[-1].stop > samples + LATE:
        detail = f"the words end at {_seconds(words[-1].stop)}, the recording {_seconds(samples)}"
        raise Unaligned("bad times", detail)
    return tuple(
        replace(word, start=min(word.start, samples), stop=min(word.stop, samples))
        for word in words
    )


def _seconds(samples: int) -> str:
    return f"{samples / SAMPLE_RATE:.2f} s"
