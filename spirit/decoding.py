"""Foreign audio decoded block by block, and every refusal of what cannot be used."""

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from math import gcd, isfinite
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from spirit.sound import Sound, is_url
from spirit.streams import Stream, opened, sha256_of_file
from spirit.units import SAMPLE_RATE

MAX_SECONDS = 6 * 3600.0
MAX_CHANNELS = 32
MIN_RATE, MAX_RATE = 4_000, 384_000
MAX_PEAK = 100.0  # a mixing desk peaks at 2 or 4; integers saved as floats at 32,768
LATE = SAMPLE_RATE // 10
"""Samples that times may lie beyond the end of a recording: people and aligners round."""
MARGIN = SAMPLE_RATE // 2
"""Samples around a stretch that are decoded too: more than the resampler's filter reaches, and than
MP3 needs behind a seek until it sounds as if played from the beginning."""
ALL = 1 << 62
UNKNOWN = (1 << 63) - 1
"""Frames of a FLAC that was written into a pipe, as libsndfile counts them."""
BLOCK = 1 << 16  # values decoded at a time: a forged header asks for no more, a cache holds them

Fault = Literal[
    "missing",
    "not_a_file",
    "not_readable",
    "empty",
    "not_audio",
    "rate",
    "channels",
    "nan",
    "too_loud",
    "too_long",
    "cut_short",
    "beyond_end",
    "chained",
    "too_large",
    "timed_out",
    "crashed",
    "unusable",
]
"""Why audio cannot be used, for programs; the line says it for people. `too_large` (for memory),
`timed_out` and `crashed` come from decoding in a process of its own (`spirit.data.decoder`)."""


class AudioError(ValueError):
    """Audio that cannot be used; one line that says what, where, and what to do."""

    def __init__(self, line: str, code: Fault = "unusable") -> None:
        super().__init__(line)
        self.code: Fault = code


def read_into(
    source: str | Path | bytes | Sound,
    keep: Callable[[Float[np.ndarray, " _"]], None],
    *,
    max_seconds: float = MAX_SECONDS,
    hashed: bool = True,
) -> str:
    """As `read_hashed`, but what is decoded goes to `keep` block by block; returns the SHA-256.

    After an error, what has been kept is of no use.
    """
    sound = Sound("the audio") if isinstance(source, bytes) else Sound.of(source)
    digest, some = "", False
    # A long file with many stretches is hashed once, by itself.
    with open_decoder(source, hashed=hashed and sound.whole, whole=sound.whole) as (
        file,
        name,
        stream,
    ):
        stretch = _stretch(file, sound, name, max_seconds)
        for block in _within(_blocks(file, name, stretch), stretch.wanted):
            keep(block)
            some = True
        stream.check()
        if sound.whole and file.format == "OGG" and stream.is_chain():
            raise AudioError(
                f"{name}: several Ogg streams in a chain, and only the first can be read; convert "
                "it to wav or flac",
                "chained",
            )
        if hashed and sound.whole:
            digest = stream.sha256()
    if not some:
        raise AudioError(f"{name}: holds no sound; record or copy it again", "empty")
    return sha256_of_file(sound) if hashed and not sound.whole else digest


@contextmanager
def open_decoder(
    source: str | Path | bytes | Sound, *, hashed: bool = False, whole: bool = False
) -> Iterator[tuple[soundfile.SoundFile, str, Stream]]:
    if isinstance(source, bytes):
        name = "the audio"
        opening: AbstractContextManager[Stream] = nullcontext(
            Stream(io.BytesIO(source), name, hashed=hashed)
        )
    else:
        sound = Sound.of(source)
        name = str(sound)
        if not is_url(sound.uri) and sound.row is None:
            _check_file(Path(sound.uri), name)
        opening = opened(sound, hashed=hashed)
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(opening)
        except ConnectionError:
            raise
        except FileNotFoundError:
            raise AudioError(f"{name}: no such file; check the path", "missing") from None
        except OSError as error:
            raise AudioError(
                f"{name}: cannot be opened ({error.strerror})", "not_readable"
            ) from None
        except ValueError as error:  # of a Parquet file
            raise AudioError(str(error), "not_readable") from None
        if not stream.seek(0, io.SEEK_END):
            raise AudioError(f"{name}: the file is empty; record or copy it again", "empty")
        stream.seek(0)
        try:
            native = whole and stream.descriptor is not None
            decoder = _Forward(stream.descriptor if native else stream, closefd=False)
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a headless format
            stream.check()
            raise _unreadable(name, error) from None
        with decoder:
            try:
                yield decoder, name, stream
            except (soundfile.LibsndfileError, AudioError) as error:
                stream.check()  # a disk or a network that fails is not a fault of the recording
                if isinstance(error, AudioError):
                    raise
                raise _unreadable(name, error) from None


def _check_file(path: Path, name: str) -> None:
    if not path.is_file():
        if not path.exists():
            raise AudioError(f"{name}: no such file; check the path", "missing")
        raise AudioError(f"{name}: is not a file; name one recording", "not_a_file")


def _unreadable(name: str, error: Exception) -> AudioError:
    reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
    return AudioError(
        f"{name}: cannot be read as audio ({reason}); convert it to wav or flac", "not_audio"
    )


class _Forward(soundfile.SoundFile):  # type: ignore[misc]
    """A file that is read from front to back: soundfile would seek after each block to where it is
    already, which fails in a FLAC whose header does not know its length, and is heard in MP3."""

    def seekable(self) -> bool:
        """Not for soundfile; `seek` still works."""
        return False


@dataclass(frozen=True)
class _Stretch:
    """What to decode of a file. Counts are frames of the file."""

    first: int
    frames: int
    """How many to decode at most."""
    promised: int
    """How many the file says are there."""
    limit: float
    """How many are too long."""
    wanted: slice
    """Samples at 16 kHz to keep: the resampler hears some more."""


def _stretch(file: soundfile.SoundFile, sound: Sound, name: str, max_seconds: float) -> _Stretch:
    rate, frames = file.samplerate, file.frames
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{name}: {rate} samples per second; {MIN_RATE} to {MAX_RATE} can be read, resample it",
            "rate",
        )
    if file.channels > MAX_CHANNELS:
        raise AudioError(
            f"{name}: {file.channels} channels; at most {MAX_CHANNELS} can be read, mix it down",
            "channels",
        )
    if sound.whole:
        known = frames if frames < UNKNOWN else 0
        return _Stretch(0, frames, known, max_seconds * rate, slice(0, ALL))
    there = -(-frames * SAMPLE_RATE // rate)
    if sound.start >= there or (sound.stop or 0) > there + LATE:
        raise AudioError(
            f"{name}: the recording ends at {there / SAMPLE_RATE:.2f} s; correct the times",
            "beyond_end",
        )
    stop = there if sound.stop is None else sound.stop
    if stop - sound.start > max_seconds * SAMPLE_RATE:
        raise AudioError(
            f"{name}: longer than {max_seconds:g} seconds; cut it into shorter stretches",
            "too_long",
        )
    # The file's clock and ours meet every `period` samples: begun there, the resampler gives what
    # it gives for the whole file, as it hears MARGIN samples around the stretch.
    period = SAMPLE_RATE // gcd(rate, SAMPLE_RATE)
    begin = max(0, (sound.start - MARGIN) // period * period)
    first = begin * rate // SAMPLE_RATE
    decoded = min(frames, -(-(stop + MARGIN) * rate // SAMPLE_RATE)) - first
    return _Stretch(first, decoded, decoded, decoded, slice(sound.start - begin, stop - begin))


def _blocks(
    file: soundfile.SoundFile, name: str, stretch: _Stretch
) -> Iterator[Float[np.ndarray, " _"]]:
    """Decode, check, mix down and resample by blocks; memory follows what is really there."""
    rate, most = file.samplerate, max(1, BLOCK // file.channels)
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1) if rate != SAMPLE_RATE else None
    if stretch.first:
        file.seek(stretch.first)
    decoded, whole_numbers = 0, file.subtype.startswith("PCM")  # at most 1, and never NaN
    while (left := stretch.frames - decoded) and len(
        block := file.read(min(most, left), dtype="float32", always_2d=True)
    ):
        if not whole_numbers:
            _check(block, name)
        decoded += len(block)
        if decoded > stretch.limit:
            raise AudioError(
                f"{name}: longer than {stretch.limit / rate:g} seconds; cut it into shorter "
                "recordings",
                "too_long",
            )
        sound = mono(block)
        yield resampler.resample_chunk(sound) if resampler else sound
    if decoded < stretch.promised:
        raise AudioError(
            f"{name}: cut short, {decoded} of {stretch.promised} samples are there; copy it again",
            "cut_short",
        )
    if resampler and decoded:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def _check(block: Float[np.ndarray, "frames channels"], name: str) -> None:
    lowest, highest = float(block.min()), float(block.max())
    if not (isfinite(lowest) and isfinite(highest)):
        raise AudioError(f"{name}: some samples are NaN or infinite; export it again", "nan")
    if (peak := max(-lowest, highest)) > MAX_PEAK:
        raise AudioError(
            f"{name}: samples reach {peak:.3g}; speech lies between -1 and 1, scale the recording",
            "too_loud",
        )


def mono(block: Float[np.ndarray, "frames channels"]) -> Float[np.ndarray, " frames"]:
    """The mean of the channels; numpy's own over so short an axis takes ten times as long."""
    total: np.ndarray = block[:, 0]
    for channel in range(1, block.shape[1]):
        total = total + block[:, channel]
    return total / np.float32(block.shape[1]) if block.shape[1] > 1 else total


def _within(
    blocks: Iterator[Float[np.ndarray, " _"]], wanted: slice
) -> Iterator[Float[np.ndarray, " _"]]:
    """Of the samples that blocks make together, those of a slice."""
    at = 0
    for block in blocks:
        some = block[max(0, wanted.start - at) : max(0, wanted.stop - at)]
        at += len(block)
        if len(some):
            yield some
