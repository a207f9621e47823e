"""Kaldi data folders: `wav.scp`, and `segments`, `text`, `utt2spk`, `utt2lang` where they are.

As on kaldi-asr.org/doc/data_prep.html: tables are sorted by id, so that none has to be in memory
but the names of the recordings under `segments`.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from spirit.data.jsonl import blamed, read_lines
from spirit.data.utterance import Utterance, stretch
from spirit.sound import locate
from spirit.units import SAMPLE_RATE

LAST = "\U0010ffff"
"""An id after all others."""
Line = tuple[str, str, str]
"""Where it stands, its id, and what follows."""
Place = tuple[str, int, int | None]
"""Name of a recording, first sample, last sample."""


def read_kaldi(folder: Path, root: str) -> Iterator[tuple[str, Utterance]]:
    """The utterances of a Kaldi data folder; relative paths start at `root`.

    Raises `ValueError` with file and line for an entry that is a command (it is never run), a
    segment of an unknown recording or without length, and a table that is not sorted.
    """
    names = ("text", "utt2spk", "utt2lang")
    tables = text, speaker, language = [_follow(folder / name) for name in names]
    for where, key, (name, start, stop) in _places(folder):
        with blamed(where):
            audio = locate(root, name, start, stop)
        seconds = None if stop is None else (stop - start) / SAMPLE_RATE
        yield (
            where,
            Utterance(
                key,
                audio,
                seconds,
                text(key),
                speaker=speaker(key),
                language=language(key),
            ),
        )
    for table in tables:
        table(LAST)  # what is not sorted further down has hidden something


def _places(folder: Path) -> Iterator[tuple[str, str, Place]]:
    recordings = (
        (where, key, _name(where, name)) for where, key, name in _table(folder, "wav.scp")
    )
    if not (folder / "segments").is_file():
        yield from ((where, key, (name, 0, None)) for where, key, name in recordings)
        return
    names = {key: name for _, key, name in recordings}
    for where, key, rest in _table(folder, "segments"):
        fields = rest.split()
        if len(fields) != 3:
            raise ValueError(f"{where}: a segment is its id, a recording, start and end in seconds")
        if fields[0] not in names:
            raise ValueError(f"{where}: the recording {fields[0]!r} is not in wav.scp")
        with blamed(where):
            start, end = map(float, fields[1:])
            # Kaldi's -1 is the end of the recording.
            span = stretch(start, None if end == -1 else end - start)
        yield where, key, (names[fields[0]], *span)


def _name(where: str, name: str) -> str:
    if name.endswith("|") or name.startswith("|"):
        raise ValueError(
            f"{where}: a command with a pipe is not run; write its output to a file and name that"
        )
    if re.search(r"\.ark:\d+$", name):
        raise ValueError(f"{where}: an archive is not read; copy its recordings to files")
    if not name:
        raise ValueError(f"{where}: the path of the recording is missing")
    return name


def _table(folder: Path, name: str) -> Iterator[Line]:
    """The lines of a table, checked to be sorted as by `LC_ALL=C sort`."""
    before = ""
    for where, line in read_lines(str(folder / name)):
        try:
            fields = re.split("[ \t]+", line.decode("utf-8").strip(" \t\r\n"), maxsplit=1)
        except UnicodeDecodeError as error:
            raise ValueError(f"{where}: is not UTF-8 text ({error.reason})") from None
        key, rest = fields[0], "".join(fields[1:])
        if key < before:
            raise ValueError(
                f"{where}: {key!r} comes after {before!r}; sort the table: LC_ALL=C sort"
            )
        before = key
        yield where, key, rest


def _follow(path: Path) -> Callable[[str], str]:
    """A look-up in a table for ids that come in its order; "" for what it does not have."""
    lines = _table(path.parent, path.name) if path.is_file() else iter(())
    here: Line | None = next(lines, None)

    def find(key: str) -> str:
        nonlocal here
        while here is not None and here[1] < key:
            here = next(lines, None)
        return here[2] if here is not None and here[1] == key else ""

    return find
