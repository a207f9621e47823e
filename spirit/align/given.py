"""Word times that another aligner wrote: JSONL, CTM, or Praat's TextGrids."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

from spirit import commit
from spirit.align.aligner import Unaligned, Wave
from spirit.align.textgrid import read_textgrid
from spirit.data.corpus import SUFFIXES
from spirit.data.jsonl import read_words
from spirit.units import SAMPLE_RATE, Word


class Given:
    """Takes the times of an utterance from files, by its id.

    The files are read once to find every utterance in them, and each utterance again when it is
    asked for: memory holds ids and places alone.
    """

    gate = 0.0

    def __init__(self, path: Path, tier: str = "words") -> None:
        """`path` is a JSONL file (`id` and `words` as in a corpus manifest), a CTM file, one
        TextGrid, or a folder of TextGrids named after the ids, where `tier` has the words.

        Raises ValueError with file and line for what cannot be read.
        """
        self.path, self.tier = path, tier
        self._grids: dict[str, Path] = {}
        self._places: dict[str, tuple[int, int]] = {}
        suffix = path.suffix.lower()
        if path.is_dir():
            self._grids = dict(_grids(path))
            if not self._grids:
                raise ValueError(
                    f"{path}: no TextGrids here; give a folder with some, JSONL or CTM"
                )
        elif not path.is_file():
            raise ValueError(f"{path}: no such file of word times; give JSONL, CTM or TextGrids")
        elif suffix == ".textgrid":
            self._grids = {path.stem: path}
        elif suffix in (".jsonl", ".ctm"):
            read = _jsonl_lines if suffix == ".jsonl" else _ctm_lines
            self._places = dict(_places(path, read(path)))
        else:
            raise ValueError(f"{path}: word times are JSONL, CTM or TextGrid, not {suffix!r}")

    @cached_property
    def settings(self) -> Mapping[str, str]:
        kept = hashlib.sha256()
        for id, path in self._grids.items() or {"": self.path}.items():
            kept.update(f"{id} {commit.sha256(path)}\n".encode())
        tier = {"tier": self.tier} if self._grids else {}
        return {"aligner": "given", "times": kept.hexdigest()[:16], **tier, "rules": "1"}

    def __call__(self, id: str, words: Sequence[str], hear: Callable[[], Wave]) -> list[Word]:
        bare = id[: -len(Path(id).suffix)] if Path(id).suffix.lower() in SUFFIXES else id
        for name in dict.fromkeys((id, bare)):
            if name in self._grids:
                try:
                    return read_textgrid(self._grids[name], self.tier)
                except ValueError as error:
                    raise Unaligned("bad times", str(error)) from None
            if name in self._places:
                return self._read(*self._places[name])
        raise Unaligned("no times", f"{self.path} has none for {id!r}")

    def _read(self, start: int, stop: int) -> list[Word]:
        with self.path.open("rb") as file:
            file.seek(start)
            lines = file.read(stop - start).decode().split("\n")
        if self.path.suffix.lower() == ".jsonl":
            return list(read_words(json.loads(lines[0])))
        return [_ctm_word(fields) for line in lines if (fields := _ctm_fields(line))]


def _grids(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() == ".textgrid" and path.is_file():
            yield path.relative_to(folder).as_posix()[: -len(path.suffix)], path


_Line = tuple[str, str, int, int]  # where for people, id, first byte, the byte after the last


def _places(path: Path, lines: Iterable[_Line]) -> Iterator[tuple[str, tuple[int, int]]]:
    """The stretch of the file that each utterance has to itself."""
    seen: set[str] = set()
    for id, group in groupby(lines, key=lambda line: line[1]):
        together = list(group)
        twice = together[1] if path.suffix.lower() == ".jsonl" and len(together) > 1 else None
        if id in seen or twice:
            where = (twice or together[0])[0]
            raise ValueError(f"{where}: {id!r} had its times before; keep those of an id together")
        seen.add(id)
        yield id, (together[0][2], together[-1][3])
    if not seen:
        raise ValueError(f"{path}: no word times here; give another file")


def _numbered(path: Path) -> Iterator[tuple[str, str, int, int]]:
    """The lines of a file: where for people, the text, and the bytes that it covers."""
    stop = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            start, stop = stop, stop + len(line)
            try:
                yield f"{path}:{number}", line.decode(), start, stop
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: not UTF-8 ({error.reason})") from None


def _jsonl_lines(path: Path) -> Iterator[_Line]:
    for where, line, start, stop in _numbered(path):
        if not line.strip():
            continue
        try:
            entry: Any = json.loads(line)
            if not isinstance(entry, dict):
                raise ValueError("a line is one JSON object with id and words")
            id = entry.get("id") or entry.get("audio")
            if not isinstance(id, str):
                raise ValueError("`id` is missing; it names the utterance")
            read_words(entry)
        except (ValueError, RecursionError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"{where}: {reason}") from None
        if entry.get("words"):
            yield where, id, start, stop


def _ctm_lines(path: Path) -> Iterator[_Line]:
    for where, line, start, stop in _numbered(path):
        if fields := _ctm_fields(line):
            try:
                _ctm_word(fields)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            yield where, fields[0], start, stop


def _ctm_fields(line: str) -> list[str]:
    """The fields of a line; none of a comment."""
    return [] if line.startswith(";;") else line.split()


def _ctm_word(fields: Sequence[str]) -> Word:
    """A word from `utterance channel start duration word [confidence]`, times in seconds (NIST's
    sclite manual); ValueError if it is none."""
    form = "utterance channel start duration word [confidence]"
    if len(fields) not in (5, 6):
        raise ValueError(f"{len(fields)} fields; a line is {form}")
    start, duration, score = (float(field) for field in (*fields[2:4], *fields[5:], "1")[:3])
    if not (math.isfinite(start) and math.isfinite(duration) and start >= 0 and duration >= 0):
        raise ValueError(f"{fields[4]!r} starts at {start} s and takes {duration} s")
    if not 0 <= score <= 1:
        raise ValueError(f"the confidence of {fields[4]!r} is {score}, not 0 to 1")
    stop = round((start + duration) * SAMPLE_RATE)
    return Word(fields[4], round(start * SAMPLE_RATE), stop, score)
