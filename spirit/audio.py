"""Audio in and out: any file to 16 kHz mono, and every refusal of bad audio."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
from jaxtyping import Float

from spirit import commit
from spirit.units import SAMPLE_RATE

MAX_SECONDS = 6 * 3600.0
MAX_CHANNELS = 32
MIN_RATE, MAX_RATE = 4_000, 384_000
MAX_PEAK = 100.0  # a mixing desk peaks at 2 or 4; integers saved as floats at 32,768
BLOCK = 1 << 18  # values decoded at a time: a forged header can ask for no more than this

FORMATS = {".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".opus": "OGG", ".aiff": "AIFF"}
SUBTYPES = {".ogg": "VORBIS", ".opus": "OPUS"}


class AudioError(ValueError):
    """Audio that cannot be used; one line that says what, where, and what to do."""


def read_audio(
    source: str | Path | bytes, *, max_seconds: float = MAX_SECONDS
) -> Float[np.ndarray, " samples"]:
    """Read a recording as 16 kHz mono float32, at least one sample long.

    Takes a path or the bytes of a file; wav, flac, ogg, opus, mp3, aiff and whatever else
    libsndfile decodes, 4 to 384 kHz, up to 32 channels (averaged). Raises `AudioError` for
    everything that is not usable speech: missing, unreadable, empty, cut short, longer than
    `max_seconds`, or with samples that are not finite.
    """
    with _opened(source) as (sound, name):
        blocks = list(_blocks(sound, name, max_seconds))
    wave = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if not len(wave):
        raise AudioError(f"{name}: holds no sound; record or copy it again")
    return wave


def describe_audio(path: str | Path) -> dict[str, float | int | str]:
    """What the header of a recording says: seconds, rate, channels, format."""
    with _opened(path) as (sound, _):
        return {
            "seconds": round(sound.frames / sound.samplerate, 3),
            "rate": sound.samplerate,
            "channels": sound.channels,
            "format": f"{sound.format} {sound.subtype}",
        }


@contextmanager
def _opened(source: str | Path | bytes) -> Iterator[tuple[soundfile.SoundFile, str]]:
    if isinstance(source, bytes):
        name, size = "the audio", len(source)
        file: BinaryIO = io.BytesIO(source)
    else:
        path = Path(source)
        name = str(path)
        if not path.exists():
            raise AudioError(f"{name}: no such file; check the path")
        if not path.is_file():
            raise AudioError(f"{name}: is not a file; name one recording")
        try:
            file, size = path.open("rb"), path.stat().st_size
        except OSError as error:
            raise AudioError(f"{name}: cannot be opened ({error.strerror})") from None
    with file:
        if size == 0:
            raise AudioError(f"{name}: the file is empty; record or copy it again")
        try:
            sound = soundfile.SoundFile(file)
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: a headless format
            raise _unreadable(name, error) from None
        with sound:
            try:
                yield sound, name
            except soundfile.LibsndfileError as error:
                raise _unreadable(name, error) from None


def _unreadable(name: str, error: Exception) -> AudioError:
    reason = str(getattr(error, "error_string", error)).strip().rstrip(".")
    return AudioError(f"{name}: cannot be read as audio ({reason}); convert it to wav or flac")


def _blocks(
    sound: soundfile.SoundFile, name: str, max_seconds: float
) -> Iterator[Float[np.ndarray, " _"]]:
    """Decode, check, mix down and resample by blocks; memory follows what is really there."""
    rate, channels, promised = sound.samplerate, sound.channels, sound.frames
    if not MIN_RATE <= rate <= MAX_RATE:
        raise AudioError(
            f"{name}: {rate} samples per second; {MIN_RATE} to {MAX_RATE} can be read, resample it"
        )
    if channels > MAX_CHANNELS:
        raise AudioError(
            f"{name}: {channels} channels; at most {MAX_CHANNELS} can be read, mix it down"
        )
    resampler = soxr.ResampleStream(rate, SAMPLE_RATE, 1) if rate != SAMPLE_RATE else None
    decoded = 0
    while len(block := sound.read(max(1, BLOCK // channels), dtype="float32", always_2d=True)):
        if not np.isfinite(block).all():
            raise AudioError(f"{name}: some samples are NaN or infinite; export it again")
        if np.abs(block).max() > MAX_PEAK:
            raise AudioError(
                f"{name}: samples reach {np.abs(block).max():.3g}; speech lies between -1 and 1, "
                "scale the recording"
            )
        decoded += len(block)
        if decoded > max_seconds * rate:
            raise AudioError(
                f"{name}: longer than {max_seconds:g} seconds; cut it into shorter recordings"
            )
        mono = block.mean(axis=1, dtype=np.float32)
        yield resampler.resample_chunk(mono) if resampler else mono
    if decoded < promised:
        raise AudioError(
            f"{name}: cut short, {decoded} of {promised} samples are there; copy it again"
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
