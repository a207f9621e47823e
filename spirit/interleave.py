"""Speech and text in turn, word by word: first draw where to switch, then cut."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from spirit.codec import Segment
from spirit.units import Tracks, Units, Word

SpanStyle = Literal["in-force", "slice"]
"""How a span of speech begins: with the style, pitch and unit in force, or with whatever comes into
force first, as a slice of the recording's units (spans of the released Spirit LM begin so)."""


@dataclass(frozen=True)
class Switches:
    """Where a document changes modality: before the words with the indices `at`."""

    speech_first: bool
    at: tuple[int, ...]


def draw_switches(
    words: int,
    rng: np.random.Generator,
    *,
    text: tuple[int, int] = (10, 30),
    speech: tuple[int, int] = (5, 15),
    opening: tuple[int, int] | None = None,
    speech_first: bool | None = None,
) -> Switches:
    """Draw spans of words, text and speech in turn, lengths uniform in the inclusive ranges.

    The default ranges are the paper's (Nguyen et al. 2025, section 3.2: 10 to 30 words of text, 5
    to 15 of speech, which balances their tokens). `opening` is the range of the first span, of
    either modality, where it is another one. The first modality is drawn too unless it is given.
    Raises ValueError for a range that is empty or holds 0.
    """
    for name, (low, high) in (("text", text), ("speech", speech), ("opening", opening or text)):
        if not 1 <= low <= high:
            raise ValueError(
                f"the span of {name} must be two lengths 1 <= low <= high, not {low}, {high}"
            )
    first = bool(rng.integers(2)) if speech_first is None else speech_first
    at: list[int] = []
    position, spoken = 0, first
    while True:
        span = speech if spoken else text
        low, high = span if at or opening is None else opening
        position += int(rng.integers(low, high + 1))
        if position >= words:
            return Switches(first, tuple(at))
        at.append(position)
        spoken = not spoken


def draw_switch(words: int, rng: np.random.Generator) -> Switches:
    """Draw one place of all between `words` words, and which modality comes before it.

    Raises ValueError for a single word, which has no such place.
    """
    if words < 2:
        raise ValueError(f"a switch lies between two words; here is {words}")
    return Switches(bool(rng.integers(2)), (int(rng.integers(1, words)),))


def interleave(
    words: Sequence[Word], tracks: Tracks, switches: Switches, *, span_style: SpanStyle = "in-force"
) -> tuple[Segment, ...]:
    """The utterance with speech for some spans of words and text for the others.

    A cut lies halfway between two words; silence at the ends belongs to the first and last word, so
    that the spans cover the recording. Text spans are the words with single spaces. Nothing here is
    random.
    """
    if not words:
        raise ValueError("interleaving needs word times; run `spirit align` on the shards first")
    bounds = [0, *switches.at, len(words)]
    segments: list[Segment] = []
    spoken = switches.speech_first
    for first, last in pairwise(bounds):
        text, speech = excerpt(words, tracks, first, last, span_style=span_style)
        segments.append(speech if spoken else text)
        spoken = not spoken
    return tuple(segments)


def excerpt(
    words: Sequence[Word],
    tracks: Tracks,
    first: int,
    last: int,
    *,
    span_style: SpanStyle = "in-force",
) -> tuple[str, Units]:
    """The words `[first, last)` with single spaces, and their speech, cut as in `interleave`."""
    start, stop = cut(words, first, tracks), cut(words, last, tracks)
    speech = Units.build([])
    if span_style == "slice":
        units, onsets = tracks.timed()
        speech = units[(onsets >= start) & (onsets < stop)]
    if not len(speech):  # a slice inside one long unit: no segment is empty
        speech = tracks.clip(start, stop).merge()
    return " ".join(word.text for word in words[first:last]), speech


def cut(words: Sequence[Word], index: int, tracks: Tracks) -> int:
    """The sample at which a recording is cut before the word `index` (or after the last one)."""
    if index == 0:
        return tracks.origin
    if index == len(words):
        return tracks.origin + tracks.samples
    return (words[index - 1].stop + words[index].start) // 2
