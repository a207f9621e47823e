"""The bytes that sound lies in, read once: hashed on the way, from a file, a URL or Parquet."""

import errno
import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from spirit.sound import File, Sound, is_url, locate, lost, open_uri

MAX_GROUP = 4 << 30
"""Bytes of sound that a row group of a Parquet file may hold: it is in memory as a whole."""
GAP = 1 << 20
"""Bytes that a reader may skip and that are then read for the hash alone."""

BEHIND = 1 << 17
"""Bytes at most that libsndfile has read ahead, a page of Ogg included."""
_PAGE, _BEGINNING = re.compile(rb"OggS\0[\0\1\4\5]"), re.compile(rb"OggS\0[\2\3\6\7]")
"""Pages of Ogg: one within a stream, one that begins a stream."""


class Stream:
    """A file as libsndfile reads it: hashed on the way, and errors kept, not lost in a callback."""

    def __init__(self, file: File, uri: str, *, hashed: bool) -> None:
        self._file, self._uri = file, uri
        self._hash = hashlib.sha256() if hashed else None
        self._seen = 0  # bytes from the beginning that are in the hash
        self._error: Exception | None = None
        self.descriptor = file.fileno() if isinstance(file, io.BufferedReader) else None
        """Of a local file, which libsndfile reads by itself: to ask Python for every 8 kB takes a
        fifth of the time that FLAC takes."""
        self._stamp = self._look()

    def _look(self) -> tuple[int, int]:
        if self.descriptor is None:
            return (0, 0)
        found = os.fstat(self.descriptor)
        return found.st_size, found.st_mtime_ns

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of a file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell()

    def read(self, count: int = -1) -> bytes:
        """As of a file; only `readinto` is hashed."""
        return self._file.read(count)

    def readinto(self, buffer: Any) -> int:
        """As of a file; after an error there is nothing more to read."""
        if self._error is not None:
            return 0
        try:
            view = memoryview(buffer).cast("B")
            if self._hash is None:
                return self._file.readinto(view)
            at = self._file.tell()
            if self._seen < at <= self._seen + GAP:
                self._file.seek(self._seen)
                self._add(self._file.read(at - self._seen))
                self._file.seek(at)
            count = self._file.readinto(view)
            if at <= self._seen < at + count:
                self._add(view[self._seen - at : count])
            return count
        except Exception as error:
            self._error = error
            return 0

    def _add(self, some: bytes | memoryview) -> None:
        assert self._hash is not None
        self._hash.update(some)
        self._seen += len(some)

    def is_chain(self) -> bool:
        """Whether another Ogg stream begins behind the one that has just been read to its end
        (RFC 3533, 4): libsndfile reads the first alone, and says nothing."""
        try:
            self._file.seek(max(0, self._file.tell() - BEHIND))
            some = self._file.read(GAP)
            while some:
                within = _PAGE.search(some)
                if within and _BEGINNING.search(some, within.end()):
                    return True
                more = self._file.read(GAP)
                some = some[-BEHIND:] + more if more else b""
            return False
        except Exception as error:
            self._error = error
            self.check()
            raise

    def check(self) -> None:
        """Raise the error that ended the reading, if there was one."""
        if self._look() != self._stamp:
            raise OSError(errno.EBUSY, "changed while it was read", self._uri)
        if isinstance(self._error, OSError) and not is_url(self._uri):
            raise self._error
        if isinstance(self._error, MemoryError):
            raise self._error
        if self._error is not None:
            raise lost(self._uri, self._error)

    def sha256(self) -> str:
        """The SHA-256 of the whole file; what has not been read is read now."""
        assert self._hash is not None
        try:
            self._file.seek(self._seen)
            some = memoryview(bytearray(GAP >> 4))
            while count := self._file.readinto(some):
                self._add(some[:count])
        except Exception as error:
            self._error = error
        self.check()
        return self._hash.hexdigest()


@contextmanager
def opened(sound: Sound, *, hashed: bool) -> Iterator[Stream]:
    """The file that a sound lies in, or what its row of a Parquet file holds.

    Raises `FileNotFoundError` or another `OSError`, `ValueError` for a Parquet file that cannot be
    read, and what `open_uri` raises.
    """
    uri = sound.uri
    if sound.row is None:
        file: File = open_uri(uri)
    else:
        held = embedded(uri, sound.column, sound.row)
        uri = uri if isinstance(held, bytes) else str(held)
        local = None if isinstance(held, bytes) or is_url(uri) else Path(uri)
        if local and local.exists() and not local.is_file():  # who opens a FIFO waits
            raise OSError(errno.EINVAL, "is not a file", uri)
        file = io.BytesIO(held) if isinstance(held, bytes) else open_uri(uri)
    with closing(file):
        stream = Stream(file, uri, hashed=hashed)
        yield stream
        stream.check()


def sha256_of_file(sound: Sound) -> str:
    """The SHA-256 of the file that a stretch is cut from, read once however many stretches it
    has."""
    return _sha256(Sound(sound.uri, row=sound.row, column=sound.column), _stamp(sound.uri))


@lru_cache(maxsize=1024)
def _sha256(sound: Sound, _: tuple[int, int]) -> str:
    with opened(sound, hashed=True) as stream:
        return stream.sha256()


def _stamp(uri: str) -> tuple[int, int]:
    """What changes when a local file is written again."""
    if is_url(uri):
        return (0, 0)
    found = Path(uri).stat()
    return found.st_size, found.st_mtime_ns


def embedded(uri: str, column: str, row: int) -> bytes | Path | Sound:
    """What a row of a Parquet file holds as sound: its bytes, or the file that it names.

    The row group is kept for the next rows. Raises `ValueError` in one line.
    """
    from pyarrow import ArrowException

    try:
        stamp = _stamp(uri)
        ends = _parquet_file(uri, stamp)[1]
        group = next(i for i, end in enumerate(ends) if row < end)
        first = ends[group - 1] if group else 0
        value: Any = _row_group(uri, stamp, column, group)[row - first].as_py()
    except (ArrowException, KeyError, StopIteration) as error:
        reason = " ".join(str(error).split()) or "no such row"
        raise ValueError(f"{uri} row {row}: cannot be read ({reason})") from None
    held, name = (value["bytes"], value["path"]) if isinstance(value, dict) else (value, None)
    if isinstance(held, bytes):
        return held
    if not name:
        raise FileNotFoundError(2, "neither bytes nor a path are there", f"{uri} row {row}")
    return locate(uri.rpartition("/")[0] or ".", name)


def parquet_file(uri: str) -> Any:
    """A Parquet file, opened once. Raises what pyarrow and `open_uri` raise."""
    return _parquet_file(uri, _stamp(uri))[0]


@lru_cache(maxsize=4)
def _parquet_file(uri: str, stamp: tuple[int, int]) -> tuple[Any, list[int]]:
    """The file, and how many rows lie up to the end of each row group."""
    from pyarrow import parquet

    file = parquet.ParquetFile(open_uri(uri) if is_url(uri) else uri)
    ends, total = [], 0
    for group in range(file.num_row_groups):
        total += file.metadata.row_group(group).num_rows
        ends.append(total)
    return file, ends


@lru_cache(maxsize=1)
def _row_group(uri: str, stamp: tuple[int, int], column: str, group: int) -> Any:
    file = _parquet_file(uri, stamp)[0]
    about = file.metadata.row_group(group)
    chunks = (about.column(i) for i in range(about.num_columns))
    size = sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.startswith(column))
    if size > MAX_GROUP:
        raise ValueError(
            f"{uri}: row group {group} holds {size / 2**30:.1f} GiB of sound; write the file again "
            "with row groups of at most 4 GiB"
        )
    return file.read_row_group(group, columns=[column]).column(column)
