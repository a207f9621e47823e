"""Texts into token shards: the ids of each, ready to be mapped into memory by the loader."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any

from tqdm import tqdm

from spirit.codec import Codec
from spirit.data.children import Children
from spirit.data.texts import Texts
from spirit.data.tokens import TextTokens, write_tokens

CHUNK = 256
"""Texts that a worker encodes at a time."""


def tokenize_texts(corpus: Path, codec: Codec, out: Path, *, workers: int = 1) -> dict[str, Any]:
    """Write the ids of all texts of a file or folder to the folder `out`; returns its manifest.

    The folder appears whole at the end: stopped before, the command begins anew. The number of
    workers does not change a byte. Blank texts are left out.
    """
    texts = Texts([corpus], codec.text, codec.vocab.fingerprint)
    if any(isinstance(source, TextTokens) for source in texts.sources):
        raise ValueError(f"{corpus} holds token shards already; name them in the recipe's `texts`")
    if not len(texts):
        raise ValueError(f"{corpus} holds no text")
    with tqdm(total=len(texts), unit="text", dynamic_ncols=True) as bar:

        def counted() -> Iterator[Sequence[int]]:
            for ids in _encoded(texts, codec, workers):
                bar.update()
                if len(ids):
                    yield ids

        return write_tokens(out, counted(), codec.text, codec.vocab.fingerprint)


def _encoded(texts: Texts, codec: Codec, workers: int) -> Iterator[Sequence[int]]:
    ranges = (range(n, min(n + CHUNK, len(texts))) for n in range(0, len(texts), CHUNK))
    if workers <= 1:
        for numbers in ranges:
            yield from _encode(texts, codec, numbers)
        return
    waiting: deque[Future[list[Sequence[int]]]] = deque()
    with closing(Children(workers, (texts, codec))) as children:
        for numbers in ranges:
            waiting.append(children.submit(_work, numbers))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _encode(texts: Texts, codec: Codec, numbers: range) -> list[Sequence[int]]:
    found = (texts.text(number, codec.text) for number in numbers)
    return [codec.text.encode(text) if text.strip() else [] for text in found]


def _work(shared: tuple[Texts, Codec], numbers: range) -> list[Sequence[int]]:
    return _encode(*shared, numbers)
