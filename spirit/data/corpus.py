"""Corpora: which kind one is, and its utterances in a fixed order."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from spirit.data.jsonl import read_jsonl, read_lines
from spirit.data.kaldi import read_kaldi
from spirit.data.lhotse import is_lhotse, read_lhotse
from spirit.data.parquet import NAMES, parquet_files, read_parquet
from spirit.data.utterance import Utterance
from spirit.sound import is_url

__all__ = ["SUFFIXES", "Utterance", "read_corpus", "root_of"]

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")
"""What counts as a recording in a folder."""
OURS = ("rejected.jsonl", "unaligned.jsonl")
"""Lists that this project writes itself."""
KINDS = "a folder of audio, a Kaldi data folder, Parquet, or JSON lines (ours or Lhotse's cuts)"

Found = Iterator[tuple[str, Utterance]]


def read_corpus(
    path: Path | str, *, root: Path | None = None, columns: Mapping[str, str] | None = None
) -> Iterator[Utterance]:
    """The utterances of a corpus, in a fixed order. What it is shows by its name and content:

    - a folder of recordings (`SUFFIXES`, hidden files left out) and of no manifest; the id is the
      path inside the folder, and `name.txt` beside `name.wav` is its transcript;
    - a JSONL manifest, `.gz` or not, one object a line: `audio` is required, `id` defaults to it;
      `start` and `duration` (seconds) make it a stretch of a long file; `seconds`, `text`, `words`
      (`text`, `start`, `stop`, `score`; samples from the beginning of the stretch), `speaker`,
      `language`, `style`, `phones` (`[name, start, stop]`) may be there; other keys are left alone;
    - a manifest of Lhotse's cuts, see `read_lhotse`;
    - a Kaldi data folder or its `wav.scp`, see `read_kaldi`;
    - a Parquet file or a folder of them, see `read_parquet`; `columns` names columns.

    A manifest or Parquet file may be a URL, given as text. Relative paths of audio start at `root`,
    or where the manifest lies; URLs go through fsspec. The recordings are not opened. A
    `ValueError` of one line names the file and the line, or says why a path is no corpus.
    """
    if unknown := set(columns or {}) - set(NAMES):
        raise ValueError(f"{min(unknown)!r} is no column to name; there are {', '.join(NAMES)}")
    return _unique(_read(path, None if root is None else str(root), columns or {}), path)


def root_of(path: Path | str) -> Path | str:
    """Where the relative paths of a corpus start: the folder that it is, or lies in."""
    if isinstance(path, str):
        return path.rpartition("/")[0] if is_url(path) else root_of(Path(path))
    return path if path.is_dir() else path.parent


def _read(path: Path | str, given: str | None, columns: Mapping[str, str]) -> Found:
    uri = str(path)
    root = given or str(root_of(path))
    if not is_url(uri) and Path(uri).is_dir():
        return _read_folder(Path(uri), given, columns)
    if not is_url(uri) and not Path(uri).is_file():
        raise ValueError(f"{uri}: no such corpus; give {KINDS}")
    name = uri.rpartition("/")[2]
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 (of a URL, perhaps)
    if suffix in SUFFIXES:
        raise ValueError(f"{uri} is one recording; give its folder or a JSONL manifest")
    if name == "wav.scp" and not is_url(uri):
        return read_kaldi(Path(uri).parent, root)
    if suffix == ".parquet":
        return read_parquet(uri, name, root, columns)
    if suffix in (".jsonl", ".json") or name.endswith(".jsonl.gz"):
        return read_lhotse(uri, root) if _has_cuts(uri) else read_jsonl(uri, root)
    raise ValueError(f"{uri}: what kind of corpus this is does not show; give {KINDS}")


def _has_cuts(uri: str) -> bool:
    for _, line in read_lines(uri):
        with suppress(ValueError, RecursionError):  # a reader says what is wrong with it
            return is_lhotse(json.loads(line))
        break
    return False


def _read_folder(folder: Path, given: str | None, columns: Mapping[str, str]) -> Found:
    parquets = parquet_files(folder)
    if (folder / "wav.scp").is_file():
        if parquets:
            raise ValueError(f"{folder}: holds both wav.scp and Parquet files; name one of them")
        return read_kaldi(folder, given or str(folder))
    if not parquets:
        return _read_recordings(folder)
    if next(_read_recordings(folder), None):
        raise ValueError(
            f"{folder}: holds both recordings and Parquet files; name the Parquet file, or "
            "a folder with recordings alone"
        )
    return (
        found
        for path in parquets
        for found in read_parquet(
            str(path), path.relative_to(folder).as_posix(), given or str(path.parent), columns
        )
    )


def _unique(found: Found, path: Path | str) -> Iterator[Utterance]:
    seen: set[str] = set()
    for where, utterance in found:
        if re.search(r"[\x00-\x1f\x7f]", utterance.id):
            raise ValueError(f"{where}: the id {utterance.id!r} holds a control character")
        if utterance.id in seen:
            raise ValueError(f"{where}: the id {utterance.id!r} was used before; ids are unique")
        seen.add(utterance.id)
        yield utterance
    if not seen:
        kinds = " ".join(suffix[1:] for suffix in SUFFIXES)
        raise ValueError(f"{path}: no recordings here ({kinds}); give {KINDS}")


def _read_recordings(folder: Path) -> Found:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            audio = Path(parent, name)
            if name.startswith("."):
                continue
            if audio.suffix.lower() not in SUFFIXES:
                _refuse_manifest(folder, audio)
                continue
            # A name that is not UTF-8, or has a line break, still gets an id to write down.
            inside = os.fsencode(audio.relative_to(folder).as_posix())
            plain = inside.decode("utf-8", "backslashreplace")
            utterance_id = re.sub(r"[\x00-\x1f\x7f]", lambda c: f"\\x{ord(c[0]):02x}", plain)
            yield str(audio), Utterance(utterance_id, audio, text=_transcript(audio))


def _refuse_manifest(folder: Path, path: Path) -> None:
    """Recordings are not read without what a manifest among them says: that would be lost."""
    described = path.name == "wav.scp"
    if path.name.endswith((".jsonl", ".jsonl.gz")) and path.name not in OURS and path.is_file():
        with suppress(ValueError, OSError, RecursionError):  # what cannot be read describes nothing
            entry = json.loads(next(read_lines(str(path)), ("", b"0"))[1])
            described = is_lhotse(entry) or (isinstance(entry, dict) and "audio" in entry)
    if described:
        raise ValueError(
            f"{folder}: {path.relative_to(folder)} lies among the recordings and describes some; "
            f"name {path}, or a folder with recordings alone"
        )


def _transcript(audio: Path) -> str:
    path = audio.with_suffix(".txt")
    if not path.is_file():
        return ""
    try:
        return " ".join(path.read_text(encoding="utf-8").split())
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: a transcript must be UTF-8 text ({error})") from error
