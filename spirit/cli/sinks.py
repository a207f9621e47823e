"""Where speech goes while it is still being made: a file, a pipe, a loudspeaker."""

import shutil
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from spirit.units import SAMPLE_RATE

STDOUT = Path("-")
SUFFIXES = (".wav", ".raw")
UNKNOWN = 0xFFFFFFFF
"""The length of a WAV that is still being written; players read such a file to its end."""
PLAYERS = {
    "aplay": "-q -t raw -f S16_LE -r 16000 -c 1 -",
    "paplay": "--raw --format=s16le --rate=16000 --channels=1",
    "ffplay": "-autoexit -nodisp -loglevel error -f s16le -ar 16000 -ch_layout mono -i -",
    "play": "-q -t raw -e signed -b 16 -r 16000 -c 1 -",
}
"""Programs that play samples from their standard input, and how they are told."""

Wave = Float[np.ndarray, " _"]


@runtime_checkable
class Sink(Protocol):
    """Something that takes 16 kHz sound piece by piece."""

    def write(self, wave: Wave) -> None:
        """Take a piece; it is out when this returns."""
        ...

    def close(self) -> None:
        """No more comes."""
        ...


class Written:
    """Samples of 16 bits in a file or on standard output, as WAV or (`.raw`) by themselves."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError for a format that cannot be written piece by piece."""
        check(path)
        self.file: BinaryIO = sys.stdout.buffer if path == STDOUT else path.open("wb")
        self.wav = path.suffix.lower() != ".raw"
        self.count = 0
        if self.wav:
            self.file.write(_header(UNKNOWN))

    def write(self, wave: Wave) -> None:
        """Append a piece and push it out."""
        self.count += self.file.write(pcm(wave))
        self.file.flush()

    def close(self) -> None:
        """Put the true length into the header of a file; a pipe has been read by now."""
        if self.file is sys.stdout.buffer:
            self.file.flush()
            return
        with self.file:
            if self.wav and self.file.seekable():
                self.file.seek(0)
                self.file.write(_header(self.count))


class Program:
    """A program that plays what is piped into it."""

    def __init__(self, name: str) -> None:
        self.name = name
        command = [name, *PLAYERS[name].split()]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)

    def write(self, wave: Wave) -> None:
        """Play a piece. Raises ValueError if the player is gone."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(pcm(wave))
            self.process.stdin.flush()
        except BrokenPipeError:
            told, _ = self._end()
            raise ValueError(self._why(told)) from None

    def close(self) -> None:
        """Wait until all is played. Raises ValueError if the player could not."""
        told, failed = self._end()
        if failed:
            raise ValueError(self._why(told))

    def _end(self) -> tuple[bytes, int]:
        """What the player says about itself, and with which status it ends."""
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        with self.process.stderr as stream:
            return stream.read(), self.process.wait()

    def _why(self, told: bytes) -> str:
        reason = " ".join(told.decode(errors="replace").split())[:200]
        return f"{self.name} does not play ({reason or 'it was closed'}); write with --out instead"


class Device:
    """A loudspeaker, by the package sounddevice."""

    def __init__(self, sounddevice: Any) -> None:
        self.stream = sounddevice.RawOutputStream(SAMPLE_RATE, channels=1, dtype="int16")
        self.stream.start()

    def write(self, wave: Wave) -> None:
        """Play a piece."""
        self.stream.write(pcm(wave))

    def close(self) -> None:
        """Wait until all is played."""
        self.stream.stop()
        self.stream.close()


def player() -> Sink:
    """What can play sound here: sounddevice, else a program. Raises ValueError if nothing can."""
    try:
        import sounddevice

        return Device(sounddevice)
    except (ImportError, OSError):  # OSError: PortAudio is missing
        pass
    except Exception as error:  # its own kinds: no device, or a busy one
        if type(error).__name__ != "PortAudioError":
            raise
    for name in PLAYERS:
        if shutil.which(name):
            return Program(name)
    raise ValueError(
        "nothing here can play sound; install one of: pip install '.[play]' (sounddevice), "
        f"{', '.join(PLAYERS)}; or write it with --out"
    )


def check(path: Path) -> None:
    """Refuse a path that sound cannot be written to piece by piece."""
    if path == STDOUT:
        return
    if path.suffix.lower() not in SUFFIXES:
        known = " or ".join(SUFFIXES)
        raise ValueError(f"{path}: --stream writes {known}, or - for standard output")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; name a file for the audio")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: its folder does not exist; make {path.parent} first")


def pcm(wave: Wave) -> bytes:
    """Samples of 16 bits, little-endian, rounded as libsndfile rounds them: down."""
    scaled = np.clip(np.floor(wave * np.float32(32_768)), -32_768, 32_767)
    return bytes(scaled.astype("<i2").tobytes())


def _header(size: int) -> bytes:
    whole = size if size == UNKNOWN else size + 36
    form = struct.pack("<HHIIHH", 1, 1, SAMPLE_RATE, 2 * SAMPLE_RATE, 2, 16)
    riff = struct.pack("<4sI4s4sI", b"RIFF", whole, b"WAVE", b"fmt ", len(form))
    return riff + form + struct.pack("<4sI", b"data", size)
