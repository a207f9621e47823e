"""Documents for training: what a source offers, in which order, and each document drawn anew."""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Int

from spirit.codec import Codec, Document
from spirit.data.order import Numbers, Order, draw_rng
from spirit.data.shards import HELD, Row, read_shards
from spirit.data.spoken import Spoken
from spirit.data.texts import Texts
from spirit.interleave import (
    SpanStyle,
    Switches,
    cut,
    draw_switch,
    draw_switches,
    excerpt,
    interleave,
)
from spirit.units import Units

__all__ = ["SOURCES", "Documents", "Source", "draw_rng", "read_lines"]

Source = Literal["interleaved", "speech", "text", "transcribe", "speak"]
SOURCES: tuple[Source, ...] = get_args(Source)


class Documents:
    """Every document that shards and texts offer. Documents are numbered: rows, then texts.

    Nothing here has state that matters: a document is a pure function of the seed, its source, its
    epoch and its row, and so is the order of an epoch.
    """

    def __init__(
        self,
        codec: Codec,
        shards: Sequence[Path],
        texts: Sequence[Path] = (),
        *,
        own_texts: bool = True,
        text_span: tuple[int, int] = (10, 30),
        speech_span: tuple[int, int] = (5, 15),
        opening: tuple[int, int] | None = None,
        once: float = 0.0,
        only_heard: str = "",
        span_style: SpanStyle = "in-force",
        excerpts: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.codec = codec
        self._folders = ", ".join(map(str, shards)) or "no folder of shards"
        vocabulary = codec.vocab.fingerprint
        self._texts = Texts(texts, codec.text, vocabulary)  # first: it is checked sooner
        self._shards = [read_shards(folder, fingerprint=vocabulary) for folder in shards]
        self._ends = list(accumulate((len(shards) for shards in self._shards), initial=0))
        self._own_texts = own_texts
        self._spans = (text_span, speech_span, opening)
        self._once = once
        self._only_heard = re.compile(only_heard) if only_heard else None
        self._masks: dict[tuple[int, int], Bool[np.ndarray, " rows"]] = {}
        self._span_style: SpanStyle = span_style
        self._excerpts = excerpts
        self._seed = seed
        parts = [part["sha256"] for shards in self._shards for part in shards.manifest["parts"]]
        texts_say = (mark for source in self._texts.sources for mark in source.marks())
        self.fingerprint = _digest(map(str.encode, parts), texts_say)
        """16 hexadecimal digits that change with the shards and texts."""
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_orders", "_spoken")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def _open(self) -> None:
        self._orders: dict[Source, Order] = {}
        self._spoken = lru_cache(maxsize=HELD * max(1, len(self._shards)))(self._speak)

    def _speak(self, folder: int, part: int) -> Spoken:
        return Spoken(self._shards[folder].part(part), self.codec)

    def of(self, source: Source) -> Numbers:
        """The numbers of the documents of a source. Raises `ValueError` if there are none."""
        return self.order(source).all()

    def order(self, source: Source) -> Order:
        """The documents of a source, by epoch. Raises `ValueError` if there are none."""
        if source not in self._orders:
            self._orders[source] = self._order(source)
        return self._orders[source]

    def _order(self, source: Source) -> Order:
        places = [(f, p) for f, shards in enumerate(self._shards) for p in range(len(shards.sizes))]
        if source == "text" and not self._own_texts:
            places = []
        able = [self._able(source, folder, part) for folder, part in places]
        starts = [self._ends[f] + self._shards[f].starts[p] for f, p in places]
        written = self._texts.chunks if source == "text" else []
        first = list(accumulate(written, initial=self._ends[-1]))

        def numbers(chunk: int) -> Numbers:
            if chunk < len(able):
                return np.flatnonzero(able[chunk]) + starts[chunk]
            chunk -= len(able)
            return np.arange(first[chunk], first[chunk + 1])

        sizes = [int(np.count_nonzero(rows)) for rows in able] + written
        if not sum(sizes):
            lack = {"interleaved": "word times; run `spirit align`", "speech": "rows"}
            left = ""
            if any(mask.any() for mask in self._masks.values()) and self._only_heard:
                left = f" beside what only_heard = {self._only_heard.pattern!r} matches"
            raise ValueError(
                f"the mixture wants {source}, but nothing in {self._folders} has "
                f"{lack.get(source, 'text')}{left}"
            )
        whole = all(len(shards.sizes) <= HELD for shards in self._shards)
        if source == "text":
            whole = whole and self._texts.whole
        return Order(sizes, numbers, (self._seed, source), whole=whole)

    def _able(self, source: Source, folder: int, part: int) -> Bool[np.ndarray, " rows"]:
        """Which rows of a part can become a document of a source."""
        words, lengths, wordless = self._shards[folder].facts[part]
        if source == "interleaved":
            found: np.ndarray = words > 1  # a single word has no place to switch
        elif source == "speech":
            found = np.ones(len(words), bool)
        elif source == "transcribe":
            found = (lengths > 0) | wordless  # where nobody speaks, nothing is the transcript
        else:
            found = lengths > 0  # of nothing there is no speech
        if self._only_heard and source != "transcribe":
            found = found & ~self._heard(folder, part)
        return found

    def _heard(self, folder: int, part: int) -> Bool[np.ndarray, " rows"]:
        """Which rows of a part are only to be heard."""
        if (folder, part) not in self._masks:
            assert self._only_heard is not None
            ids = self._shards[folder].ids(part)
            mask = np.array([bool(self._only_heard.search(name)) for name in ids], bool)
            self._masks[folder, part] = mask
        return self._masks[folder, part]

    def id_of(self, number: int) -> str:
        """The id of a row, or which text it is."""
        if number >= self._ends[-1]:
            return f"text {number - self._ends[-1]}"
        spoken, row = self._find(number)
        return spoken.part.string("id", row)

    def find(self, name: str) -> int:
        """The number of the document with an id or, where none has it, of that number. Raises
        `ValueError` if there is none."""
        for number in range(self._ends[-1]):
            if self.id_of(number) == name:
                return number
        if name.isdigit() and int(name) < len(self):
            return int(name)
        raise ValueError(
            f"no document {name!r} in {self._folders}: give the id of an utterance, or a number "
            f"below {len(self)}"
        )

    def __len__(self) -> int:
        return self._ends[-1] + len(self._texts)

    def document(self, source: Source, epoch: int, number: int) -> Document:
        """The document that a source makes of a row (or a text) in an epoch."""
        if number >= self._ends[-1]:
            text = self._texts.text(number - self._ends[-1], self.codec.text)
            return Document((text,), closed=True)
        row = self._row(number)
        if source == "text":
            return Document((row.text,), closed=True)
        if source == "interleaved":
            switches = self._switches(epoch, row.id, len(row.words))
            segments = interleave(row.words, row.tracks, switches, span_style=self._span_style)
            return Document(segments, closed=True)
        if source == "speech":
            return Document((row.tracks.merge(),), closed=True)
        words, sound = self._words_and_sound(source, epoch, row)
        if source == "transcribe":
            return Document((sound, words), task="transcribe", closed=True)
        return Document((words, sound), task="speak", closed=True)

    def encode(self, source: Source, epoch: int, number: int) -> Int[np.ndarray, " tokens"]:
        """The ids of a document: those that the codec gives of `document`."""
        vocab = self.codec.vocab
        if number >= self._ends[-1]:
            ids = self._texts.ids(number - self._ends[-1], self.codec.text)
            found = np.empty(len(ids) + 3, np.int64)
            found[0], found[1], found[-1] = vocab.bos, vocab.markers["text"], vocab.eos
            found[2:-1] = ids
            return found
        spoken, row = self._find(number)
        if spoken.foreign:  # the codec says which unit it is
            return self.codec.encode(self.document(source, epoch, number))
        if source == "interleaved":
            name = spoken.part.string("id", row)
            switches = self._switches(epoch, name, spoken.words(row))
            return spoken.interleaved(row, switches, self._span_style)
        if source == "speech":
            return spoken.speech(row)
        if source == "text":
            return spoken.text(row)
        name = spoken.part.string("id", row) if self._excerpts else ""
        return spoken.task(source, row, self._excerpt(source, epoch, name, spoken.words(row)))

    def recording(self, number: int) -> Row | None:
        """The row of a document; None where it is a text."""
        return self._row(number) if number < self._ends[-1] else None

    def cheap(self, number: int) -> bool:
        """Whether a document's ids lie on disk: no work is saved by having another process read
        them."""
        return number >= self._ends[-1] and self._texts.tokenized(number - self._ends[-1])

    def spans(self, source: Source, epoch: int, number: int) -> list[tuple[int, int]] | None:
        """The words `[first, last)` of each segment of a document; None where their times are not
        known."""
        if source == "text" or number >= self._ends[-1]:
            return None
        row = self._row(number)
        if source == "interleaved":
            bounds = [0, *self._switches(epoch, row.id, len(row.words)).at, len(row.words)]
            return list(pairwise(bounds))
        span = None if source == "speech" else self._excerpt(source, epoch, row.id, len(row.words))
        if not row.words or (span is None and " ".join(w.text for w in row.words) != row.text):
            return None
        return [span or (0, len(row.words))] * (1 if source == "speech" else 2)

    def _switches(self, epoch: int, name: str, words: int) -> Switches:
        text, speech, opening = self._spans
        rng = draw_rng(self._seed, "interleave", epoch, name)
        # Without `once` nothing is drawn for it: older recipes keep their documents.
        if self._once and rng.random() < self._once:
            return draw_switch(words, rng)
        return draw_switches(words, rng, text=text, speech=speech, opening=opening)

    def _words_and_sound(self, source: Source, epoch: int, row: Row) -> tuple[str, Units]:
        """The words and the speech of a row, or of some words of it that follow one another."""
        span = self._excerpt(source, epoch, row.id, len(row.words))
        return excerpt(row.words, row.tracks, *span) if span else (row.text, row.tracks.merge())

    def _excerpt(self, source: Source, epoch: int, name: str, words: int) -> tuple[int, int] | None:
        if self._excerpts and words > 1:
            rng = draw_rng(self._seed, "excerpt", source, epoch, name)
            if rng.random() < self._excerpts:
                # Short ones most often: each doubling of the length has an equal share.
                count = int(words ** rng.random())
                first = int(rng.integers(words - count + 1))
                return first, first + count
        return None

    def windows(
        self, source: Source, epoch: int, number: int
    ) -> Int[np.ndarray, "2 tokens"] | None:
        """Where in the question of a task document the word lies that the next token belongs to.

        Row 0 is the first place of each token's window and row 1 the place after the last; both are
        0 where the next token is no part of the answer. None where word times are not known.
        """
        row = self._row(number) if number < self._ends[-1] else None
        if source not in ("transcribe", "speak") or row is None:
            return None
        span = self._excerpt(source, epoch, row.id, len(row.words))
        first, last = span or (0, len(row.words))
        words = [word.text for word in row.words[first:last]]
        if not words or (span is None and " ".join(words) != row.text):
            return None
        cuts = [cut(row.words, index, row.tracks) for index in range(first, last + 1)]
        units, onsets = (row.tracks.clip(cuts[0], cuts[-1]) if span else row.tracks).timed()
        if source == "transcribe":
            onsets = onsets[self.codec.words(units)]
        spoken = np.searchsorted(cuts[1:-1], onsets, side="right")
        beginnings = [" ".join(words[: count + 1]) for count in range(len(words))]
        ends = [len(self.codec.text.encode(beginning)) for beginning in beginnings]
        written = np.searchsorted(ends, np.arange(ends[-1]), side="right")
        asked, answered = (spoken, written) if source == "transcribe" else (written, spoken)
        found = np.zeros((2, len(onsets) + ends[-1] + 4), np.int64)
        # <s>, a marker, the question, the task's marker, the answer, </s>
        before = slice(2 + len(asked), 2 + len(asked) + len(answered))
        found[0, before] = 2 + np.searchsorted(asked, answered, side="left")
        found[1, before] = 2 + np.searchsorted(asked, answered, side="right")
        found[:, found[0] == found[1]] = 0
        return found

    def prompt_length(self, source: Source, ids: Int[np.ndarray, " tokens"]) -> int:
        """The tokens of a document before its answer: BOS, or the whole question of a task."""
        if source not in ("transcribe", "speak"):
            return 1
        # The question is of the other modality: the answer's marker stands nowhere else.
        return int(np.argmax(ids == self.codec.task_marker(source))) + 1

    def name(self, number: int) -> str:
        """What people call a document: the id of its utterance, or a line of the texts."""
        if number >= self._ends[-1]:
            return f"line {number - self._ends[-1] + 1} of the texts"
        return f"utterance {self._row(number).id!r}"

    def _row(self, number: int) -> Row:
        shards = bisect_right(self._ends, number) - 1
        return self._shards[shards][number - self._ends[shards]]

    def _find(self, number: int) -> tuple[Spoken, int]:
        folder = bisect_right(self._ends, number) - 1
        part, row = self._shards[folder].place(number - self._ends[folder])
        return self._spoken(folder, part), row


def _digest(*marks: Iterable[bytes]) -> str:
    """16 hexadecimal digits of what is given, one after another with newlines between."""
    digest = hashlib.sha256()
    for number, mark in enumerate(chain(*marks)):
        digest.update(b"\n" + mark if number else mark)
    return digest.hexdigest()[:16]


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that hold something. Raises `ValueError` if it is no UTF-8 text."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    return [stripped for line in lines if (stripped := line.strip())]
