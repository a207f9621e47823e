"""Audio in and out: any file to 16 kHz mono, and every refusal of bad audio."""

import io
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from spirit import commit
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
BLOCK = 1 << 18  # values decoded at a time: a forged header can ask for no more than this

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".opus": "OGG", ".aiff": "AIFF"}
SUBTYPES = {".ogg": "VORBIS", ".opus": "OPUS"}


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
    "unusable",
]
"""Why audio cannot be used, for programs; the line says it for people."""


class AudioError(ValueError):
    """Audio that cannot be used; one line that says what, where, and what to do."""

    def __init__(self, line: str, code: Fault = "unusable") -> None:
        super().__init__(line)
        self.code: Fault = code


def read_audio(
    source: str | Path | bytes | Sound, *, max_seconds: float = MAX_SECONDS
) -> Float[np.ndarray, " samples"]:
    """Read a recording as 16 kHz mono float32, at least one sample long.

    Takes a path, a URL, the bytes of a file or a `Sound`; wav, flac, ogg, opus, mp3, aiff and
    whatever else libsndfile decodes, 4 to 384 kHz, up to 32 channels (averaged). A stretch of a
    `Sound` gives the samples `[start, stop)` of the whole recording, and only they are decoded.
    Raises `AudioError` for everything that is not usable speech: missing, unreadable, empty, cut
    short, longer than `max_seconds`, or with samples that are not finite; `ConnectionError` for a
    URL that fails.
    """
    return _read(source, max_seconds, hashed=False)[0]


def read_hashed(
    sound: Path | Sound, *, max_seconds: float = MAX_SECONDS
) -> tuple[Float[np.ndarray, " samples"], str]:
    """As `read_audio`, with the SHA-256 of the file, or of the bytes in a Parquet file, that the
    sound lies in. A file is read once for both."""
    return _read(sound, max_seconds, hashed=True)


def _read(
    source: str | Path | bytes | Sound, max_seconds: float, *, hashed: bool
) -> tuple[Float[np.ndarray, " samples"], str]:
    sound = Sound("the audio") if isinstance(source, bytes) else Sound.of(source)
    digest = ""
    # A long file with many stretches is hashed once, by itself.
    with _opened(source, hashed=hashed and sound.whole) as (file, name, stream):
        stretch = _stretch(file, sound, name, max_seconds)
        blocks = list(_blocks(file, name, stretch))
        stream.check()
        if hashed and sound.whole:
            digest = stream.sha256()
    wave = np.concatenate(blocks)[stretch.wanted] if blocks else np.zeros(0, np.float32)
    if not len(wave):
        raise AudioError(f"{name}: holds no sound; record or copy it again", "empty")
    return wave, sha256_of_file(sound) if hashed and not sound.whole else digest


def describe_audio(path: str | Path | Sound) -> dict[str, float | int | str]:
    """What the header of a recording says: seconds, rate, channels, format."""
    with _opened(path) as (sound, *_):
        return {
            "seconds": round(sound.frames / sound.samplerate, 3),
            "rate": sound.samplerate,
            "channels": sound.channels,
            "format": f"{sound.format} {sound.subtype}",
        }


@contextmanager
def _opened(
    source: str | Path | bytes | Sound, *, hashed: bool = False
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
            decoder = soundfile.SoundFile(stream)
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
    if not path.exists():
        raise AudioError(f"{name}: no such file; check the path", "missing")
    if not path.is_file():
        raise AudioError(f"{name}: is not a file; name one recording", "not_a_file")


def _unreadable(name: str, error: Exception) -> AudioError:
    reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
    return AudioError(
        f"{name}: cannot be read as audio ({reason}); convert it to wav or flac", "not_audio"
    )


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
        return _Stretch(0, ALL, frames, max_seconds * rate, slice(None))
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
    # soundfile seeks behind every block to where it is already, and in MP3 a seek is heard.
    file.seekable = lambda: False
    decoded = 0
    while len(
        block := file.read(min(most, stretch.frames - decoded), dtype="float32", always_2d=True)
    ):
        if not np.isfinite(block).all():
            raise AudioError(f"{name}: some samples are NaN or infinite; export it again", "nan")
        if np.abs(block).max() > MAX_PEAK:
            raise AudioError(
                f"{name}: samples reach {np.abs(block).max():.3g}; speech lies between -1 and 1, "
                "scale the recording",
                "too_loud",
            )
        decoded += len(block)
        if decoded > stretch.limit:
            raise AudioError(
                f"{name}: longer than {stretch.limit / rate:g} seconds; cut it into shorter "
                "recordings",
                "too_long",
            )
        mono = block.mean(axis=1, dtype=np.float32)
        yield resampler.resample_chunk(mono) if resampler else mono
    if decoded < stretch.promised:
        raise AudioError(
            f"{name}: cut short, {decoded} of {stretch.promised} samples are there; copy it again",
            "cut_short",
        )
    if resampler and decoded:
        yield resampler.resample_chunk(np.zeros(0, np.float32), last=True)


def resample(
    wave: Float[np.ndarray, " samples"], rate_in: int, rate_out: int
) -> Float[np.ndarray, " resampled"]:
    """Change the sample rate; a band-limited conversion by soxr at high quality."""
    if rate_in == rate_out:
        return wave
    changed: np.ndarray = soxr.resample(wave, rate_in, rate_out)
    return changed


def check_writable(path: str | Path) -> Path:
    """Refuse a path that `write_audio` could not write, before the work that makes the sound."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        known = " ".join(FORMATS)
        raise AudioError(f"{path}: no audio format is called '{path.suffix}'; use one of {known}")
    if path.is_dir():
        raise AudioError(f"{path}: is a folder; name a file for the audio")
    if not path.parent.is_dir():
        raise AudioError(f"{path}: its folder does not exist; make {path.parent} first")
    return path


def write_audio(
    path: str | Path, wave: Float[np.ndarray, " samples"], rate: int = SAMPLE_RATE
) -> None:
    """Write mono audio whole or not at all, in the format its extension names (wav, flac: 16-bit).

    Samples beyond -1 and 1 are clipped. Raises `AudioError` when the path or the samples cannot be
    audio, `OSError` when the disk is full or refuses.
    """
    path = check_writable(path)
    if not np.isfinite(wave).all():
        raise AudioError(f"{path}: not written, the audio holds NaN or infinite samples")
    suffix = path.suffix.lower()
    encoded = io.BytesIO()  # encoded aside: libsndfile does not report a full disk
    subtype = SUBTYPES.get(suffix, "PCM_16")
    with soundfile.SoundFile(encoded, "w", rate, 1, subtype, format=FORMATS[suffix]) as sound:
        for start in range(0, len(wave), BLOCK):  # libsndfile dies of a long Vorbis file in one go
            sound.write(np.clip(wave[start : start + BLOCK], -1.0, 1.0))
    try:
        with commit.file(path) as partial:
            partial.write_bytes(encoded.getvalue())
    except OSError as error:  # name the file that was asked for, not the one aside
        raise OSError(error.errno, f"not written, {error.strerror}", str(path)) from None
