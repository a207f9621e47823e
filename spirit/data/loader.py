"""Training rows: documents mixed by shares of tokens, packed, in an order with exact state.

What comes next is a pure function of (config, data, state): no clock, no thread and no other
process takes part in it. Every rank plans the same rows and keeps its own.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from spirit.codec import Codec
from spirit.data.ahead import Ahead
from spirit.data.documents import Documents, Source, draw_rng
from spirit.data.mixture import MixtureConfig
from spirit.data.packing import draw_back, emptiest, fill_rows, pack

__all__ = ["IGNORED", "MixtureConfig", "Piece", "Rows", "pack"]

IGNORED = -100
"""The label of a position that is not trained."""


class Piece(NamedTuple):
    """Tokens `[start, stop)` of a document, all of it unless it is longer than a row."""

    source: Source
    epoch: int
    number: int
    start: int
    stop: int


Tokens = Int[np.ndarray, " _"]
PackedRow = Sequence[tuple[Piece, Tokens]]


@dataclass(frozen=True)
class _State:
    """Where the drawing of documents stands before a window."""

    window: int = 0
    places: Mapping[Source, tuple[int, int]] = field(default_factory=dict)
    """Source to (epoch, documents of that epoch drawn before)."""
    tokens: Mapping[Source, int] = field(default_factory=dict)
    carry: tuple[Piece, ...] = ()
    """The pieces of the rows that the window before left unfilled."""
    ages: tuple[int, ...] = ()
    """For how many windows each of them has waited."""


class Rows:
    """An endless iterator of batches, with state.

    A batch is a dict of int64 tensors `[rows of this rank, tokens]`: `ids`; `document`, the number
    of the document inside its row, -1 on padding; `positions`, from 0 in each document; `labels`,
    the id itself (not shifted) where it is trained and -100 elsewhere. The first token of a
    document is no label: nothing comes before it. With `windows` there are also `first` and `last`:
    the places `[first, last)` in its document, see `Documents.windows`.

    Documents longer than a row are cut into pieces; transcribe and speak documents, which make no
    sense in pieces, are then left out and counted in `skipped`.
    """

    def __init__(
        self,
        config: MixtureConfig,
        codec: Codec,
        *,
        rank: int = 0,
        ranks: int = 1,
        windows: bool = False,
    ) -> None:
        """`windows` adds to each batch where the word of each answered token was heard or read."""
        if config.rows % ranks:
            raise ValueError(f"rows = {config.rows} cannot be shared by {ranks} processes")
        self.config, self.rank, self.ranks = config, rank, ranks
        self._windows = windows
        self.documents = Documents(
            codec,
            config.shards,
            config.texts,
            own_texts=config.own_texts,
            text_span=config.text_span,
            speech_span=config.speech_span,
            opening=config.opening,
            once=config.once,
            only_heard=config.only_heard,
            span_style=config.span_style,
            excerpts=config.excerpts,
            seed=config.seed,
        )
        self.counts = {source: len(self.documents.order(source)) for source in config.weights}
        """Documents of each source in an epoch."""
        self.skipped = dict.fromkeys(config.weights, 0)
        """Task documents longer than a row that this process came across."""
        self.latest: tuple[tuple[Piece, ...], ...] = ()
        """What the rows of the last step were made of, on all ranks."""
        self._weights = config.weights
        self._ahead = Ahead(self.documents, config.workers)
        self._used = self._positions = 0
        self._restore(_State(), 0)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return self

    def __next__(self) -> dict[str, Tensor]:
        rows = [self.next_row() for _ in range(self.config.rows)]
        self.latest = tuple(tuple(piece for piece, _ in row) for row in rows)
        return self._batch(rows[self.rank :: self.ranks])

    @property
    def shares(self) -> dict[Source, float]:
        """The measured share of each source in the tokens drawn so far."""
        total = sum(self._after.tokens.values()) or 1
        return {source: self._after.tokens.get(source, 0) / total for source in self.counts}

    @property
    def measured(self) -> dict[str, float]:
        """What to log: the share of each source in the tokens drawn so far, and of positions used
        in the rows since this process began."""
        shares = {f"mixture/{source}": share for source, share in self.shares.items()}
        return {**shares, "mixture/used": self._used / max(1, self._positions)}

    def close(self) -> None:
        """Let the workers go."""
        self._ahead.close()

    def state_dict(self) -> dict[str, Any]:
        """Where this iterator stands, as JSON; the same on every rank."""
        before = self._before
        return {
            "seed": self.config.seed,
            "data": self.documents.fingerprint,
            "documents": dict(self.counts),
            "window": before.window,
            "places": {source: list(place) for source, place in before.places.items()},
            "tokens": dict(before.tokens),
            "carry": [list(piece) for piece in before.carry],
            "ages": list(before.ages),
            "fill": self.config.fill,
            "taken": self._taken,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was called. Raises `ValueError` if the data are others."""
        here = self.state_dict()
        state = {"fill": 0.0, "ages": [0] * len(state["carry"]), **state}  # older ones lack these
        for key in ("seed", "data", "documents", "fill"):
            if state[key] != here[key]:
                raise ValueError(
                    f"the saved position belongs to other data ({key} {state[key]}, here "
                    f"{here[key]}); go on with the same recipe and shards, or start anew"
                )
        before = _State(
            window=state["window"],
            places={source: (place[0], place[1]) for source, place in state["places"].items()},
            tokens=dict(state["tokens"]),
            carry=tuple(Piece(*piece) for piece in state["carry"]),
            ages=tuple(state["ages"]),
        )
        self._restore(before, state["taken"])

    def _restore(self, before: _State, taken: int) -> None:
        self._before = self._after = before
        self._queue: deque[PackedRow] = deque()
        self._waiting: dict[Piece, Tokens] = {}
        """The ids of what the last window carried over, not to make them twice."""
        self._taken = taken
        if taken:
            self._plan()
            for _ in range(taken):
                self._queue.popleft()

    def next_row(self) -> PackedRow:
        """The next row of all, as pieces of documents with their ids."""
        while not self._queue:
            self._before, self._taken = self._after, 0
            self._plan()
        self._taken += 1
        row = self._queue.popleft()
        self._used += sum(len(ids) for _, ids in row)
        self._positions += self.config.row
        return row

    def _plan(self) -> None:
        """Draw a window of documents after `_before` and pack it."""
        state, config = self._before, self.config
        pieces = [(piece, self._encode(piece)) for piece in state.carry]
        places, tokens = dict(state.places), dict(state.tokens)
        for _ in range(config.window):
            total = sum(tokens.values()) + 1
            # The source that lags most behind its share comes next.
            lag = {s: share * total - tokens.get(s, 0) for s, share in self._weights.items()}
            source = max(lag, key=lag.__getitem__)
            drawn, places[source] = self._draw(source, *places.get(source, (0, 0)))
            tokens[source] = tokens.get(source, 0) + sum(len(ids) for _, ids in drawn)
            pieces += drawn
        lengths = [len(ids) for _, ids in pieces]
        ages = [*state.ages, *[-1] * (len(pieces) - len(state.ages))]
        # What is not full waits for the next window, so that it does not stay short.
        if config.fill:
            rows = fill_rows(lengths, config.row)
            most = max(64, config.window)
            wait = draw_back(rows, lengths, ages, row=config.row, fill=config.fill, most=most)
        else:
            rows = pack(lengths, config.row)
            wait = emptiest(rows, lengths, config.row)
        waiting = [i for number in sorted(wait) for i in rows[number]]
        rows = [row for number, row in enumerate(rows) if number not in wait]
        for number in draw_rng(config.seed, "rows", state.window).permutation(len(rows)):
            self._queue.append([pieces[i] for i in rows[number]])
        carry = tuple(pieces[i][0] for i in waiting)
        self._waiting = {pieces[i][0]: pieces[i][1] for i in waiting}
        after = tuple(ages[i] + 1 for i in waiting)
        self._after = _State(state.window + 1, places, tokens, carry, after)

    def _draw(
        self, source: Source, epoch: int, position: int
    ) -> tuple[list[tuple[Piece, Tokens]], tuple[int, int]]:
        """The next document of a source in pieces of at most a row, and the place after it."""
        row, count = self.config.row, self.counts[source]
        for _ in range(count):
            number, ids = self._ahead.read(source, epoch, position)
            after = (epoch, position + 1) if position + 1 < count else (epoch + 1, 0)
            if len(ids) <= row:
                return [(Piece(source, epoch, number, 0, len(ids)), ids)], after
            if source not in ("transcribe", "speak"):
                cuts = [(start, min(start + row, len(ids))) for start in range(0, len(ids), row)]
                pieces = [Piece(source, epoch, number, start, stop) for start, stop in cuts]
                return [(piece, ids[piece.start : piece.stop]) for piece in pieces], after
            self.skipped[source] += 1
            epoch, position = after
        raise ValueError(f"row = {row} is too short for every {source} document; make it longer")

    def _encode(self, piece: Piece) -> Tokens:
        if piece in self._waiting:
            return self._waiting[piece]
        ids = self.documents.encode(piece.source, piece.epoch, piece.number)
        return ids[piece.start : piece.stop]

    def _batch(self, rows: Sequence[PackedRow]) -> dict[str, Tensor]:
        shape = (len(rows), self.config.row)
        ids = np.full(shape, self.documents.codec.vocab.eos, np.int64)
        document, labels = np.full(shape, -1, np.int64), np.full(shape, IGNORED, np.int64)
        positions = np.zeros(shape, np.int64)
        windows = np.zeros((2, *shape) if self._windows else 0, np.int64)
        for number, row in enumerate(rows):
            lengths = np.array([len(tokens) for _, tokens in row])
            starts = np.cumsum(lengths) - lengths
            used = int(lengths.sum())
            ids[number, :used] = np.concatenate([tokens for _, tokens in row])
            document[number, :used] = np.repeat(np.arange(len(row)), lengths)
            positions[number, :used] = np.arange(used) - np.repeat(starts, lengths)
            labels[number, :used] = ids[number, :used]
            labels[number, starts] = IGNORED
            for (piece, tokens), start in zip(row, starts.tolist(), strict=True):
                if self.config.answer_only:
                    given = self.documents.prompt_length(piece.source, tokens)
                    labels[number, start : start + given] = IGNORED
                if self._windows and (found := self.documents.windows(*piece[:3])) is not None:
                    windows[:, number, start : start + len(tokens)] = found
        batch = {"ids": ids, "document": document, "positions": positions, "labels": labels}
        if self._windows:
            batch |= {"first": windows[0], "last": windows[1]}
        return {name: torch.from_numpy(array) for name, array in batch.items()}
