"""Parquet files with a column of sound, as Hugging Face's datasets writes them: a struct of `bytes`
and `path`, plain bytes, or paths. Bytes are decoded from memory, where they lie."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from spirit.data.jsonl import blamed
from spirit.data.utterance import Utterance, is_number, string
from spirit.sound import Sound, locate
from spirit.streams import parquet_file

NAMES = {
    "audio": ("audio", "speech", "audio_path", "audio_filepath", "file", "path"),
    "text": ("text", "sentence", "transcription", "normalized_text", "transcript"),
    "id": ("id", "utterance_id", "utt_id", "segment_id"),
    "speaker": ("speaker_id", "speaker", "client_id"),
    "language": ("language", "lang", "locale"),
    "seconds": ("seconds",),
}
"""The usual names of columns, the first that is there is taken; of `text` only one may be there."""
SPLITS = ("train", "validation", "valid", "dev", "test")
ROWS = 1_024
"""Rows that are read at a time, without their sound."""


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files in a folder, in order. Raises `ValueError` if they are several splits."""
    files = sorted(
        path
        for path in folder.rglob("*.parquet")
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    splits = {s for f in files for s in SPLITS if f.name.startswith((f"{s}-", f"{s}."))}
    if len(splits) > 1:
        raise ValueError(
            f"{folder}: holds the splits {', '.join(sorted(splits))}; name one file, or a folder "
            "with one split"
        )
    return files


def read_parquet(
    uri: str, prefix: str, root: str, names: Mapping[str, str]
) -> Iterator[tuple[str, Utterance]]:
    """The rows of one Parquet file, without their sound.

    `names` says which column is what where the usual names (`NAMES`) do not; relative paths start
    at `root`. A row without an id is called `prefix#number`. Raises `ValueError` in one line.
    """
    from pyarrow import ArrowException

    with blamed(uri):
        try:
            file = parquet_file(uri)
        except (ArrowException, FileNotFoundError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"cannot be read as Parquet ({reason}); copy it again") from None
        columns = _columns(file.schema_arrow.names, names)
        paths = _holds_paths(columns["audio"], file.schema_arrow.field(columns["audio"]).type)
    wanted = [column for key, column in columns.items() if key != "audio" or paths]
    number = 0
    for batch in _batches(uri, file, list(dict.fromkeys(wanted))):
        lists = {
            key: batch.column(column).to_pylist()
            for key, column in columns.items()
            if column in wanted
        }
        for i in range(batch.num_rows):
            where = f"{uri} row {number}"
            with blamed(where):
                entry = {key: column[i] for key, column in lists.items()}
                audio: Path | Sound = Sound(uri, row=number, column=columns["audio"])
                if paths:
                    if not (name := string(entry, "audio")):
                        raise ValueError("the path of the recording is missing")
                    audio = locate(root, name)
                utterance = _utterance(entry, audio, f"{prefix}#{number}")
            yield where, utterance
            number += 1


def _batches(uri: str, file: Any, columns: list[str]) -> Iterator[Any]:
    from pyarrow import ArrowException

    try:
        yield from file.iter_batches(ROWS, columns=columns, use_threads=False)
    except (ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{uri}: is damaged ({reason}); copy it again") from None


def _columns(present: list[str], names: Mapping[str, str]) -> dict[str, str]:
    """Which column is what."""
    there = ", ".join(present) or "none"
    columns: dict[str, str] = {}
    for key, usual in NAMES.items():
        found = [name for name in usual if name in present]
        if key in names:
            if names[key] not in present:
                raise ValueError(f"has no column {names[key]!r}; there are {there}")
            found = [names[key]]
        if key == "text" and len(found) > 1:
            raise ValueError(f"has {' and '.join(found)}; say which: --column text={found[0]}")
        if found:
            columns[key] = found[0]
    if "audio" not in columns:
        raise ValueError(f"has no column of sound, but {there}; say which: --column audio=NAME")
    return columns


def _holds_paths(name: str, form: Any) -> bool:
    """Whether a column names files, and does not hold them."""
    from pyarrow import types

    if types.is_string(form) or types.is_large_string(form):
        return True
    inside = types.is_struct(form) and {field.name for field in form} >= {"bytes", "path"}
    if not (inside or types.is_binary(form) or types.is_large_binary(form)):
        raise ValueError(
            f"the column {name!r} is {form}; sound is a struct of bytes and path, bytes or a path"
        )
    return False


def _utterance(entry: dict[str, Any], audio: Path | Sound, name: str) -> Utterance:
    for key in ("id", "speaker", "language"):
        if type(entry.get(key)) is int:
            entry[key] = str(entry[key])
    return Utterance(
        string(entry, "id") or name,
        audio,
        float(entry["seconds"]) if is_number(entry.get("seconds")) else None,
        string(entry, "text"),
        speaker=string(entry, "speaker"),
        language=string(entry, "language"),
    )
