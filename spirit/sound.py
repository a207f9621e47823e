"""Where sound lies: a file, a URL or a row of a Parquet file; all of it, or a stretch."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

from spirit.units import SAMPLE_RATE


@dataclass(frozen=True)
class Sound:
    """A recording where it lies, for `spirit.audio.read_audio`."""

    uri: str
    """A local path, or a URL that fsspec opens."""
    start: int = 0
    """First sample of the 16 kHz clock."""
    stop: int | None = None
    """The sample after the last one; None: up to the end."""
    row: int | None = None
    """The row of a Parquet file that holds the bytes of the recording; None: the file is it."""
    column: str = ""
    """The column of that file."""

    def __post_init__(self) -> None:
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise ValueError(f"no sound lies from sample {self.start} to {self.stop}")

    @classmethod
    def of(cls, audio: "str | Path | Sound") -> "Sound":
        """The same place as a `Sound`; a path is a whole file."""
        return audio if isinstance(audio, Sound) else cls(str(audio))

    @property
    def whole(self) -> bool:
        """Whether it is all of a recording."""
        return self.start == 0 and self.stop is None

    @property
    def size(self) -> int:
        """Bytes of the local file that it lies in; -1 where there is none, or for a URL."""
        path = Path(self.uri)
        try:
            return -1 if is_url(self.uri) or not path.is_file() else path.stat().st_size
        except (OSError, ValueError):  # ValueError: a NUL in the name
            return -1

    def __str__(self) -> str:
        """For people: `talk.wav from 1.5 s to 3 s`."""
        place = self.uri if self.row is None else f"{self.uri} row {self.row}"
        if self.whole:
            return place
        end = "its end" if self.stop is None else f"{self.stop / SAMPLE_RATE:g} s"
        return f"{place} from {self.start / SAMPLE_RATE:g} s to {end}"


def is_url(uri: str) -> bool:
    """Whether fsspec is to open it: `s3://`, `file://`, `memory://` and so on."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*://", uri) is not None


def locate(root: str, name: str, start: int = 0, stop: int | None = None) -> Path | Sound:
    """The recording `name` of a corpus; a relative name starts at `root`, a path or a URL.

    A whole local file is a `Path`, everything else a `Sound`. Raises `ValueError` for a name that
    cannot be one, and where the package behind a URL's protocol is missing.
    """
    if "\0" in name:
        raise ValueError(f"{name!r} cannot be the name of a file")
    if is_url(name):
        uri = name
    elif is_url(root) and not name.startswith("/"):
        uri = f"{root}/{name}"
    else:
        uri = str(Path(root, name))
    if is_url(uri):
        check_protocol(uri.partition("://")[0])
    elif start == 0 and stop is None:
        return Path(uri)
    return Sound(uri, start, stop)


@lru_cache
def check_protocol(protocol: str) -> None:
    """Raise `ValueError` in one line if what opens URLs of this protocol is not there."""
    try:
        import fsspec

        fsspec.get_filesystem_class(protocol)
    except ModuleNotFoundError as error:
        raise ValueError(f"URLs need a package that is missing: pip install {error.name}") from None
    except (ImportError, ValueError) as error:
        raise ValueError(f"{protocol}:// cannot be read here: {error}") from None


@runtime_checkable
class File(Protocol):
    """A file open for reading bytes, Python's or fsspec's."""

    def read(self, count: int = -1, /) -> bytes: ...
    def readinto(self, buffer: Any, /) -> int: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...
    def close(self) -> None: ...


def open_uri(uri: str) -> File:
    """Open a local file or a URL to read bytes.

    Raises `OSError` for a local file, `FileNotFoundError` for a URL with nothing there and
    `ConnectionError` for one that fails otherwise: that one may be there tomorrow.
    """
    if not is_url(uri):
        return Path(uri).open("rb")
    check_protocol(uri.partition("://")[0])
    import fsspec

    try:
        return cast(File, fsspec.open(uri, "rb").open())
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(2, "no such file", uri) from None
    except Exception as error:  # each protocol has errors of its own
        raise lost(uri, error) from error


def lost(uri: str, error: Exception) -> ConnectionError:
    """What to raise for a URL that fails: not a fault of the recording."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return ConnectionError(f"{uri}: cannot be fetched ({reason}); run again to go on")
