"""A part of unit shards: a Parquet file, one row an utterance, with a note on where it is from."""

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from spirit.sound import Sound, is_url, locate
from spirit.units import Kind, Track, Tracks, Word


@dataclass(frozen=True, eq=False)
class Row:
    """One utterance as units."""

    id: str
    audio: str
    """Path of the file with the recording, relative to the folder of the corpus where it lies
    inside, or a URL."""
    seconds: float
    text: str
    words: tuple[Word, ...]
    speaker: str
    language: str
    style: str
    tracks: Tracks
    start: int = 0
    """First sample of the recording that is heard here, on the 16 kHz clock."""
    stop: int | None = None
    """The sample after the last one; None: up to the end."""
    parquet_row: int | None = None
    """The row of a Parquet file that holds the recording; None: the file is the recording."""
    parquet_column: str = ""
    sha256: str = ""
    """Of the bytes of the whole recording: of its file, or of what the Parquet file holds."""

    def sound(self, folder: Path) -> Path | Sound:
        """Where the recording lies, for `read_audio`; relative paths start at `folder`."""
        if self.parquet_row is None:
            return locate(str(folder), self.audio, self.start, self.stop)
        uri = self.audio if is_url(self.audio) else str(folder / self.audio)
        return Sound(uri, self.start, self.stop, self.parquet_row, self.parquet_column)


@dataclass(frozen=True, kw_only=True)
class Note:
    """What a part is made from and by."""

    format: int = 2
    """Parts of format 1 knew the path of the recording only."""

    vocabulary: str
    """Fingerprint of the vocabulary."""
    tokenizer: str
    """Fingerprint of the speech tokenizer."""
    variant: str = "expressive"
    source: str = ""
    """SHA-256 of the utterances that went in."""
    device: str = "cpu"
    dtype: str = "fp32"
    """Precision of the encoder, fp32 or bf16; notes without it are of fp32."""
    threads: int = 1
    """Threads of the encoder; sums of floats depend on it, and on the batches."""
    batch_seconds: float = 0.0
    """Seconds of audio that were encoded together."""
    windows: dict[str, float] | None = None
    """By which seconds long recordings were cut; parts without it are older than the note of it."""
    rejected: tuple[dict[str, Any], ...] = ()
    """`id`, `audio`, `code` and `reason` of each recording that is not in the part."""
    alignment: dict[str, Any] | None = None
    """What put the word times there and what came of it, see `spirit.align`; None: the corpus."""

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> "Note":
        """The note in what `read_note` gives."""
        known = {f.name: about[f.name] for f in dataclasses.fields(cls) if f.name in about}
        return cls(**{**known, "rejected": tuple(known.get("rejected", ()))})


AUDIO = {
    "uri": "audio",
    "start": "start",
    "stop": "stop",
    "parquet_row": "parquet_row",
    "parquet_column": "parquet_column",
    "sha256": "sha256",
}
"""The column `audio` of a part: name in it, name in a `Row`."""


def part_name(index: int) -> str:
    """The file name of a part."""
    return f"part-{index:05d}.parquet"


def part_bytes(rows: Sequence[Row], note: Note) -> bytes:
    """A part as a Parquet file; the same rows and note give the same bytes."""
    import pyarrow
    from pyarrow import parquet

    hops = {_hops(row) for row in rows}
    if len(hops) > 1:
        raise ValueError(f"rows of one part have different hops: {sorted(map(str, hops))}")
    word = pyarrow.struct(
        [("text", "string"), ("start", "int64"), ("stop", "int64"), ("score", "float32")]
    )
    texts = ("id", "speaker", "language", "text")
    columns: dict[str, tuple[Any, list[Any]]] = {
        name: (pyarrow.string(), [getattr(row, name) for row in rows]) for name in texts
    }
    columns["audio"] = (_audio_type(), [{n: getattr(r, f) for n, f in AUDIO.items()} for r in rows])
    columns["style_name"] = (pyarrow.string(), [row.style for row in rows])
    columns["seconds"] = (pyarrow.float64(), [row.seconds for row in rows])
    words = [[dataclasses.asdict(word) for word in row.words] for row in rows]
    columns["words"] = (pyarrow.list_(word), words)
    for kind in Kind:
        units = [_int16(row, kind) for row in rows]
        columns[kind.key] = (pyarrow.list_(pyarrow.int16()), units)
    table = pyarrow.table({name: pyarrow.array(v, type=t) for name, (t, v) in columns.items()})
    about = {**dataclasses.asdict(note), "hops": dict(next(iter(hops), ()))}
    about["seconds"] = sum(row.seconds for row in rows)
    about["units"] = {
        kind.key: sum(len(row.tracks.by_kind.get(kind, ())) for row in rows) for kind in Kind
    }
    table = table.replace_schema_metadata({"spirit": json.dumps(about)})
    stream = io.BytesIO()
    parquet.write_table(table, stream, compression="zstd", compression_level=3)
    return stream.getvalue()


def _audio_type() -> Any:
    import pyarrow

    whole = ("start", "stop", "parquet_row")
    return pyarrow.struct([(name, "int64" if name in whole else "string") for name in AUDIO])


def _hops(row: Row) -> tuple[tuple[str, str], ...]:
    tracks = row.tracks.by_kind
    assert row.tracks.origin == 0
    assert all(track.start == 0 for track in tracks.values())
    return tuple((kind.key, str(tracks[kind].hop)) for kind in sorted(tracks))


def _int16(row: Row, kind: Kind) -> Int[np.ndarray, " _"] | None:
    if kind not in row.tracks.by_kind:
        return None
    unit = row.tracks.by_kind[kind].unit
    if len(unit) and not 0 <= unit.min() <= unit.max() < 2**15:
        raise ValueError(f"{row.id}: {kind.key} unit {unit.max()} is not in 0 to 32767")
    return unit.astype(np.int16)


def read_note(path: Path) -> dict[str, Any]:
    """The note of a finished part, with `rows`, `seconds`, `hops` and `units` (frames by kind)."""
    from pyarrow import ArrowException, parquet

    try:
        metadata = parquet.read_metadata(path)
        return {"rows": metadata.num_rows, **json.loads(metadata.metadata[b"spirit"])}
    except (ArrowException, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: not a part of unit shards ({reason}); delete it") from error


def read_index(
    path: Path,
) -> tuple[Int[np.ndarray, " rows"], Int[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]:
    """Of each row of a part, without its units: how many words with times it has, the length of its
    transcript in bytes, and whether it is known to have no words in it.

    The latter is so where its language is "zxx" (ISO 639-2: no linguistic content) and its
    transcript empty, which elsewhere means that it is not known.
    """
    from pyarrow import ArrowException, compute, parquet

    try:
        table = parquet.read_table(path, columns=["language", "text", "words"])
        counts = compute.fill_null(compute.list_value_length(table.column("words")), 0)
        lengths = compute.fill_null(compute.binary_length(table.column("text")), 0).to_numpy()
        speechless = compute.fill_null(compute.equal(table.column("language"), "zxx"), False)
    except (ArrowException, KeyError) as error:
        raise _unreadable(path, error) from error
    return counts.to_numpy(), lengths, speechless.to_numpy() & (lengths == 0)


def read_ids(path: Path) -> list[str]:
    """The ids of the rows of a part."""
    from pyarrow import ArrowException, parquet

    try:
        found: list[str] = parquet.read_table(path, columns=["id"]).column("id").to_pylist()
    except (ArrowException, KeyError) as error:
        raise _unreadable(path, error) from error
    return found


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path}: cannot be read ({str(error).splitlines()[0]})")


class Part:
    """One part, its lists as flat arrays with offsets."""

    def __init__(self, path: Path, hops: Mapping[Kind, Fraction]) -> None:
        from pyarrow import ArrowException, parquet

        try:
            table = parquet.read_table(path)
            lists = {kind: table.column(kind.key).combine_chunks() for kind in hops}
            words = table.column("words").combine_chunks()
            self._strings = {
                name: table.column(name).combine_chunks()
                for name in ("id", "speaker", "language", "text", "style_name")
            }
            self._audio = table.column("audio").combine_chunks()
            self._seconds = table.column("seconds").to_numpy()
        except (ArrowException, KeyError) as error:
            raise _unreadable(path, error) from error
        self.hops = hops
        self.units = {k: (a.offsets.to_numpy(), a.values.to_numpy()) for k, a in lists.items()}
        """Of each kind, where its row begins in all of its units, and those."""
        self.word_ends = words.offsets.to_numpy()
        self._word_text = words.values.field("text")
        self.word_times = [words.values.field(f).to_numpy() for f in ("start", "stop", "score")]

    def __len__(self) -> int:
        return len(self._seconds)

    def string(self, name: str, index: int) -> str:
        """The id, speaker, language, text or style_name of a row."""
        found: str = self._strings[name][index].as_py()
        return found

    def words(self, index: int) -> list[str]:
        """The words of a row that have times."""
        first, last = self.word_ends[index : index + 2].tolist()
        found: list[str] = self._word_text[first:last].to_pylist()
        return found

    def row(self, index: int) -> Row:
        strings = {name: self.string(name, index) for name in self._strings}
        first, last = self.word_ends[index : index + 2].tolist()
        times = [column[first:last].tolist() for column in self.word_times]
        tracks = {}
        for kind, (ends, units) in self.units.items():
            tracks[kind] = Track(kind, units[ends[index] : ends[index + 1]], self.hops[kind])
        audio = self._audio[index].as_py()
        if isinstance(audio, str):  # format 1
            audio = {"uri": audio}
        return Row(
            id=strings["id"],
            seconds=float(self._seconds[index]),
            text=strings["text"],
            words=tuple(Word(*word) for word in zip(self.words(index), *times, strict=True)),
            speaker=strings["speaker"],
            language=strings["language"],
            style=strings["style_name"],
            tracks=Tracks(tracks),
            **{AUDIO[name]: value for name, value in audio.items()},
        )
