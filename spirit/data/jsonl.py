"""Our own manifests: JSON lines, one recording or stretch of a recording a line."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, BinaryIO, cast

from spirit.data.utterance import (
    Utterance,
    check_order,
    is_number,
    items,
    seconds,
    stretch,
    string,
)
from spirit.sound import locate, open_uri
from spirit.units import Word


def read_lines(uri: str) -> Iterator[tuple[str, bytes]]:
    """The lines of a local file or a URL that are not empty, unpacked if it is called `.gz`, each
    with where it stands. Raises `ValueError` in one line if the file is torn."""
    number = 0
    with closing(open_uri(uri)) as file:
        plain = cast(BinaryIO, file)
        lines = gzip.GzipFile(fileobj=plain) if uri.endswith(".gz") else plain
        try:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{uri}:{number}", line
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{uri}:{number + 1}: the rest cannot be unpacked ({error}); copy it again"
            ) from None


def read_jsonl(uri: str, root: str) -> Iterator[tuple[str, Utterance]]:
    """Our manifest, see `read_corpus`; relative paths start at `root`."""
    for where, line in read_lines(uri):
        with blamed(where):
            utterance = _utterance(json.loads(line), root)
        yield where, utterance


@contextmanager
def blamed(where: str) -> Iterator[None]:
    """Turn what is wrong inside into a `ValueError` of one line that begins with `where`."""
    try:
        yield
    except (ValueError, OverflowError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{where}: {reason}") from error


def _utterance(entry: Any, root: str) -> Utterance:
    """Raises `ValueError` that says which key is wrong."""
    if not isinstance(entry, dict):
        raise ValueError("a line of a manifest is one JSON object")
    audio = string(entry, "audio")
    if not audio:
        raise ValueError("`audio` is missing; it is the path of the recording")
    words = read_words(entry)
    phones = tuple(_phone(phone) for phone in items(entry, "phones"))
    check_order(phones, "phones")
    length, from_, duration = (seconds(entry, key) for key in ("seconds", "start", "duration"))
    start, stop = 0, None
    if from_ is not None or duration is not None:
        start, stop = stretch(from_ or 0.0, duration)
        length = duration if length is None else length
    return Utterance(
        id=string(entry, "id") or audio,
        audio=locate(root, audio, start, stop),
        seconds=length,
        text=string(entry, "text") or " ".join(word.text for word in words),
        words=words,
        speaker=string(entry, "speaker"),
        language=string(entry, "language"),
        style=string(entry, "style"),
        phones=phones,
    )


def read_words(entry: Mapping[str, Any]) -> tuple[Word, ...]:
    """The `words` of a line of a manifest (`text`, `start`, `stop`, `score`), in order of time.

    Raises `ValueError` that says which of them is wrong.
    """
    words = tuple(_word(word) for word in items(entry, "words"))
    check_order(words, "words")
    return words


def _word(entry: Any) -> Word:
    if not isinstance(entry, dict) or not {"text", "start", "stop"} <= entry.keys():
        raise ValueError(f"a word is an object with text, start and stop, not {entry!r}")
    score = entry.get("score", 1.0)
    if not is_number(score):
        raise ValueError(f"the score of a word is a number, not {score!r}")
    text = string(entry, "text")
    if not text:
        raise ValueError("a word has no text")
    return Word(text, *_times(entry["start"], entry["stop"], text), score=float(score))


def _phone(entry: Any) -> Word:
    if not isinstance(entry, list) or len(entry) != 3 or not isinstance(entry[0], str):
        raise ValueError(f"a phone is [name, start, stop], not {entry!r}")
    return Word(entry[0], *_times(entry[1], entry[2], entry[0]))


def _times(start: Any, stop: Any, name: str) -> tuple[int, int]:
    if type(start) is not int or type(stop) is not int or not 0 <= start <= stop:
        raise ValueError(f"{name!r} lies at {start!r}..{stop!r}; times are samples at 16 kHz")
    return start, stop
