"""Corpora: a folder of recordings, or a JSONL manifest with one recording a line."""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from spirit.units import Word

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
"""What counts as a recording in a folder."""


@dataclass(frozen=True)
class Utterance:
    """One recording and what is known about it. Times are samples on the 16 kHz clock."""

    id: str
    audio: Path
    seconds: float | None = None
    text: str = ""
    words: tuple[Word, ...] = ()
    speaker: str = ""
    language: str = ""
    style: str = ""
    phones: tuple[Word, ...] = ()
    """Phones as `Word`s (name, start, stop), where the corpus knows them."""


def read_corpus(path: Path) -> Iterator[Utterance]:
    """The utterances of a corpus, in a fixed order.

    A folder is searched for recordings (`SUFFIXES`, hidden files left out); the id is the path
    inside the folder, and `name.txt` beside `name.wav` is its transcript. A JSONL manifest has
    one object a line: `audio` (relative to the manifest) is required, `id` defaults to it, and
    `seconds`, `text`, `words` (`text`, `start`, `stop`, `score`), `speaker`, `language`,
    `style`, `phones` (`[name, start, stop]`) may be there; other keys are left alone.

    The recordings are not opened. A `ValueError` names the file and the line.
    """
    if path.is_dir():
        return _unique(_read_folder(path), path)
    if not path.is_file():
        raise ValueError(f"{path}: no such corpus; give a folder of audio or a JSONL manifest")
    if path.suffix.lower() in SUFFIXES:
        raise ValueError(f"{path} is one recording; give its folder or a JSONL manifest")
    return _unique(_read_manifest(path), path)


def _unique(found: Iterator[tuple[str, Utterance]], path: Path) -> Iterator[Utterance]:
    seen: set[str] = set()
    for where, utterance in found:
        if utterance.id in seen:
            raise ValueError(f"{where}: the id {utterance.id!r} was used before; ids are unique")
        seen.add(utterance.id)
        yield utterance
    if not seen:
        kinds = " ".join(suffix[1:] for suffix in SUFFIXES)
        raise ValueError(f"{path}: no recordings here; a corpus is a folder of {kinds}, or JSONL")


def _read_folder(folder: Path) -> Iterator[tuple[str, Utterance]]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            audio = Path(parent, name)
            if name.startswith(".") or audio.suffix.lower() not in SUFFIXES:
                continue
            # A name that is not UTF-8 still gets an id that can be written down.
            inside = os.fsencode(audio.relative_to(folder).as_posix())
            utterance_id = inside.decode("utf-8", "backslashreplace")
            yield str(audio), Utterance(utterance_id, audio, text=_transcript(audio))


def _transcript(audio: Path) -> str:
    path = audio.with_suffix(".txt")
    if not path.is_file():
        return ""
    try:
        return " ".join(path.read_text(encoding="utf-8").split())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: a transcript must be UTF-8 text ({error})") from error


def _read_manifest(path: Path) -> Iterator[tuple[str, Utterance]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}:{number}"
            try:
                yield where, _utterance(json.loads(line), path.parent)
            except (ValueError, RecursionError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise ValueError(f"{where}: {reason}") from error


def _utterance(entry: Any, folder: Path) -> Utterance:
    """Raises `ValueError` that says which key is wrong."""
    if not isinstance(entry, dict):
        raise ValueError("a line of a manifest is one JSON object")
    audio = _string(entry, "audio")
    if not audio:
        raise ValueError("`audio` is missing; it is the path of the recording")
    words = read_words(entry)
    phones = tuple(_phone(phone) for phone in _list(entry, "phones"))
    _check_order(phones, "phones")
    seconds = entry.get("seconds")
    if seconds is not None and (not _is_number(seconds) or seconds < 0):
        raise ValueError(f"`seconds` is {seconds!r}, not a length in seconds")
    return Utterance(
        id=_string(entry, "id") or audio,
        audio=folder / audio,
        seconds=None if seconds is None else float(seconds),
        text=_string(entry, "text") or " ".join(word.text for word in words),
        words=words,
        speaker=_string(entry, "speaker"),
        language=_string(entry, "language"),
        style=_string(entry, "style"),
        phones=phones,
    )


def read_words(entry: Mapping[str, Any]) -> tuple[Word, ...]:
    """The `words` of a line of a manifest (`text`, `start`, `stop`, `score`), in order of time.

    Raises `ValueError` that says which of them is wrong.
    """
    words = tuple(_word(word) for word in _list(entry, "words"))
    _check_order(words, "words")
    return words


def _string(entry: Mapping[str, Any], key: str) -> str:
    value = entry.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"`{key}` is {value!r}, not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"`{key}` holds half of a character ({error.reason})") from error
    return value


def _list(entry: Mapping[str, Any], key: str) -> list[Any]:
    value = entry.get(key) or []
    if not isinstance(value, list):
        raise ValueError(f"`{key}` is not a list")
    return value


def _word(entry: Any) -> Word:
    if not isinstance(entry, dict) or not {"text", "start", "stop"} <= entry.keys():
        raise ValueError(f"a word is an object with text, start and stop, not {entry!r}")
    score = entry.get("score", 1.0)
    if not _is_number(score):
        raise ValueError(f"the score of a word is a number, not {score!r}")
    text = _string(entry, "text")
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


def _check_order(spans: Sequence[Word], key: str) -> None:
    for before, after in pairwise(spans):
        if after.start < before.start or after.stop < before.stop:
            raise ValueError(f"`{key}` are not in order of time at {after.text!r}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
