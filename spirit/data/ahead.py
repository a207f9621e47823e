"""Documents as ids, by worker processes that are ahead of who reads them.

A document is a pure function of its place, so that nobody can tell who drew it.
"""

import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from spirit.data.children import AGAIN, Children
from spirit.data.documents import Documents, Source

Tokens = Int[np.ndarray, " _"]

CHUNK = 64
"""Documents that a worker draws at a time."""


class _Chunk(NamedTuple):
    """`CHUNK` documents of a source that follow one another; an epoch may end inside."""

    documents: Sequence[tuple[int, int]]
    """(epoch, number) of each."""
    ids: "Future[tuple[np.ndarray, list[int]]] | None"
    """Their ids one after another, and how many each has; None: they are read where they are
    used."""


class Ahead:
    """The documents of each source in order, drawn by `workers` processes (0: by this one)."""

    def __init__(self, documents: Documents, workers: int = 0) -> None:
        self._documents = documents
        self._chunks: dict[Source, dict[int, _Chunk]] = {}
        self._ready: dict[Source, tuple[int, list[Tokens]]] = {}
        """The chunk in use of each source, and its documents."""
        self._depth = workers + 1
        self._children: Children | None = None
        if workers:
            self._children = Children(workers, documents)
            self._finish = weakref.finalize(self, self._children.close)

    def read(self, source: Source, epoch: int, place: int) -> tuple[int, Tokens]:
        """The number and the ids of the document at a place of an epoch."""
        order = self._documents.order(source)
        if self._children is None:
            number = order.at(epoch, place)
            return number, self._documents.encode(source, epoch, number)
        chunk, inside = divmod(epoch * len(order) + place, CHUNK)
        chunks = self._chunks.setdefault(source, {})
        if chunk not in chunks or self._ready.get(source, (-1,))[0] != chunk:
            for other in [n for n in chunks if not chunk <= n < chunk + self._depth]:
                del chunks[other]
            for later in range(chunk, chunk + self._depth):
                if later not in chunks:
                    chunks[later] = self._submit(source, later)
            self._ready[source] = (chunk, self._receive(source, chunks[chunk]))
        return chunks[chunk].documents[inside][1], self._ready[source][1][inside]

    def close(self) -> None:
        """Let the workers go; what is read later is drawn here."""
        if self._children is not None:
            self._finish()
            self._children = None

    def _go_on_alone(self, error: ChildProcessError) -> None:
        if self._children is not None:
            told = f"loader: {str(error).removesuffix(AGAIN)}"
            print(f"{told}; going on without them, more slowly", file=sys.stderr)
            self.close()

    def _submit(self, source: Source, chunk: int) -> _Chunk:
        order = self._documents.order(source)
        places = [divmod(n, len(order)) for n in range(chunk * CHUNK, (chunk + 1) * CHUNK)]
        documents = [(epoch, order.at(epoch, place)) for epoch, place in places]
        if self._children is None or all(self._documents.cheap(number) for _, number in documents):
            return _Chunk(documents, None)
        return _Chunk(documents, self._children.submit(_draw, source, documents))

    def _receive(self, source: Source, chunk: _Chunk) -> list[Tokens]:
        if chunk.ids is not None:
            try:
                flat, lengths = chunk.ids.result()
                return np.split(flat.astype(np.int64), np.cumsum(lengths)[:-1])
            except CancelledError:
                pass  # closed before a worker came to it
            except ChildProcessError as error:
                self._go_on_alone(error)
        return [self._documents.encode(source, *document) for document in chunk.documents]


def _draw(
    documents: Documents, source: Source, places: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, list[int]]:
    found = [documents.encode(source, epoch, number) for epoch, number in places]
    return np.concatenate(found).astype(np.int32), [len(ids) for ids in found]
