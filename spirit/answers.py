"""Where an answer ends, and its ids as segments of text and speech."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np

from spirit.codec import Codec, Segment
from spirit.units import Kind, Units
from spirit.vocab import Want

Part = TypeVar("Part")
Until = Literal["sentence", "silence"]
LOOK = 8
"""HuBERT units between two looks at the clock."""
SILENCE = 0.6
"""Seconds of silence behind speech that end an answer, where silence is to end it."""
SILENT_UNITS = 3
"""Silent HuBERT units that are as much, where no vocoder says how long they last."""
CIRCLE = (64, 4, 48)
"""An answer goes round in circles whose end is a passage of at most so many ids, so many times in a
row, with so many ids in all."""
_SENTENCE = re.compile(r"[.!?…][\"'”’)\]]*(?=\s)")
_CLOSED = re.compile(r"[.!?…][\"'”’)\]]*$")


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Where an answer ends."""

    max_tokens: int = 1_000
    min_seconds: float = 0.0
    """Speech that there is before the model may end its answer, and before `until` holds."""
    max_seconds: float = 20.0
    stop: tuple[str, ...] = ()
    """Strings of text before which it ends."""
    until: tuple[Until, ...] = ()
    """Behind the first sentence of text, or in silence that follows speech."""

    def check(self, want: Want) -> None:
        """Raise ValueError for limits that nothing keeps, or that do not concern what is wanted."""
        if not self.max_seconds > 0:
            raise ValueError(f"an answer of at most {self.max_seconds:g} seconds holds nothing")
        if self.max_tokens < 1:
            raise ValueError(f"an answer of at most {self.max_tokens} tokens holds nothing")
        if not 0 <= self.min_seconds <= self.max_seconds:
            raise ValueError(
                f"no answer lasts at least {self.min_seconds:g} and at most {self.max_seconds:g} "
                "seconds; correct one of the two"
            )
        if "" in self.stop:
            raise ValueError("the text to stop at is empty; leave it out or give some")
        if unknown := set(self.until) - set(get_args(Until)):
            raise ValueError(f"no end {min(unknown)!r}; there are {', '.join(get_args(Until))}")
        if want == "text" and (self.min_seconds or "silence" in self.until):
            asked = "silence" if "silence" in self.until else f"{self.min_seconds:g} seconds"
            raise ValueError(f"an answer in text has no {asked}; want speech or any, or drop that")
        if want == "speech" and (self.stop or "sentence" in self.until):
            asked = f"text {self.stop[0]!r}" if self.stop else "sentence"
            raise ValueError(f"an answer in speech has no {asked} to stop at; want text or any")


class Watch:
    """Follows one answer id by id: whether it has to end, and whether it may not yet.

    Both questions are asked once after each new id, `stop` first.
    """

    def __init__(
        self,
        codec: Codec,
        limits: Limits,
        seconds: Callable[[Units], float],
        silence: Collection[int] = (),
        written: Sequence[int] = (),
        over: Callable[[Sequence[int]], bool] | None = None,
    ) -> None:
        """`silence` are the HuBERT units of silence, `written` the text that the answer goes on
        from; `over` knows an end of its own."""
        self._codec, self._limits, self._seconds = codec, limits, seconds
        self._silence, self._written = frozenset(silence), list(written)
        self._text: list[int] = list(written)
        self._heard = 0
        self._silent: int | None = None
        self._short = limits.min_seconds > 0
        self._look = False
        self._over = over

    def stop(self, ids: Sequence[int]) -> bool:
        """Whether the answer ends with its last id."""
        self._look = False
        if going_round(ids) or (self._over is not None and self._over(ids)):
            return True
        kind = int(self._codec.vocab.kind_of_ids(np.array(ids[-1:]))[0])
        if kind < 0:
            return self._stops_in_text(ids[-1]) and not self._short
        closed, self._text, self._written = self._closes(), [], []
        if kind == Kind.HUBERT:
            self._heard += 1
            self._look = self._heard % LOOK == 0
            if self._look and self._spoken(ids) >= self._limits.max_seconds:
                return True
            if self._stops_in_silence(ids) and not self._short:
                return True
        return closed and not self._short

    def hold(self, ids: Sequence[int]) -> bool:
        """Whether the answer is too short to end."""
        if self._short and self._look:
            self._short = self._spoken(ids) < self._limits.min_seconds
        return self._short

    def _spoken(self, ids: Sequence[int]) -> float:
        vocab, row = self._codec.vocab, np.array(ids)
        return self._seconds(vocab.ids_to_units(row[vocab.is_unit(row)]))

    def _stops_in_text(self, i: int) -> bool:
        vocab = self._codec.vocab
        if i in vocab.markers.values():
            return self._closes()
        self._text.append(i)
        if not (self._limits.stop or "sentence" in self._limits.until):
            return False
        return ending(self._new(), self._limits) is not None

    def _new(self) -> str:
        """The text so far, without what it goes on from."""
        decode = self._codec.text.decode
        return decode(self._text)[len(decode(self._written)) :]

    def _closes(self) -> bool:
        """Whether the text so far is a sentence, behind which something else comes."""
        wanted = "sentence" in self._limits.until and len(self._text) > len(self._written)
        return wanted and _CLOSED.search(self._new().rstrip()) is not None

    def _stops_in_silence(self, ids: Sequence[int]) -> bool:
        if "silence" not in self._limits.until:
            return False
        unit = int(self._codec.vocab.ids_to_units(np.array(ids[-1:])).unit[0])
        if unit not in self._silence:
            self._silent = -1  # something was said
        elif self._silent is not None:
            self._silent = len(ids) - 1 if self._silent < 0 else self._silent
            lasted = self._spoken(ids[self._silent :])
            spoken = np.array(ids[self._silent :])
            kinds = self._codec.vocab.kind_of_ids(spoken)
            return lasted >= SILENCE or (
                lasted == 0 and int((kinds == Kind.HUBERT).sum()) >= SILENT_UNITS
            )
        return False


def going_round(ids: Sequence[int]) -> bool:
    """Whether the end of an answer is one passage over and over: it would never end by itself."""
    longest, times, least = CIRCLE
    for period in range(1, min(longest, len(ids) // times) + 1):
        length = max(period * times, least)
        if length > len(ids) or ids[-1] != ids[-1 - period]:
            continue
        tail = list(ids[-length:])
        if tail[period:] == tail[:-period]:
            return True
    return False


def ending(text: str, limits: Limits) -> int | None:
    """Where a text is cut that reaches one of its ends, None where it reaches none."""
    places = [place for stop in limits.stop if (place := text.find(stop)) >= 0]
    if "sentence" in limits.until and (found := _SENTENCE.search(text)):
        places.append(found.end())
    return min(places, default=None)


def cut(segments: Iterator[Part], limits: Limits) -> Iterator[Part | str]:
    """The segments up to the first text that reaches an end, and of it what lies before."""
    for segment in segments:
        if isinstance(segment, str) and (place := ending(segment, limits)) is not None:
            if place:
                yield segment[:place]
            return
        yield segment


def segments(codec: Codec, ids: Iterator[int], written: Sequence[int] = ()) -> Iterator[Segment]:
    """Decode ids run by run: a segment is complete when one of the other kind begins.

    A first text goes on from the ids `written` before it: whether with a space, they tell.
    """
    run: list[int] = []
    spoken = False
    first = len(codec.text.decode(written))

    def decoded() -> Iterator[Segment]:
        nonlocal written
        if spoken or not written:
            yield from codec.decode(np.array(run, np.int64)).segments
        elif text := codec.text.decode([*written, *run])[first:]:
            yield text
        written = ()

    for new in ids:
        if new in codec.vocab.markers.values():
            continue  # what follows says what it is
        is_unit = bool(codec.vocab.is_unit(np.array([new]))[0])
        if run and is_unit != spoken:
            yield from decoded()
            run = []
        run.append(new)
        spoken = is_unit
    yield from decoded()
