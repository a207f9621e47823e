"""Hostile recordings: families of files that lie, break off, or are something else altogether.

    python tests/hostile.py OUT --count 2000 --seed 0

writes a folder that `spirit tokenize` takes as a corpus: every family once as it is, then over and
over with damage that is drawn by the seed.
"""

import argparse
import io
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
import soundfile

BOMB = 6.1 * 3600
"""Seconds of a silence that is longer than any recording may be."""
TRANSCRIPT = "[Hu12] and </s> [Speech][St1] are text {0} %s"


@dataclass(frozen=True)
class Family:
    """A way to be hostile; its name ends in a suffix."""

    name: str
    outcomes: str
    """What may come of it: `heard`, or codes of a refusal."""
    make: Callable[[Random], bytes] | None = None
    place: Callable[[Path], None] | None = None
    """For what is more than bytes."""


def noise(rng: Random, frames: int = 6_000, channels: int = 1) -> np.ndarray:
    drawn = np.random.default_rng(rng.randrange(1 << 32)).standard_normal((frames, channels))
    return np.clip(0.1 * drawn, -0.9, 0.9).astype(np.float32)


def encoded(
    wave: np.ndarray, form: str = "WAV", subtype: str | None = None, rate: int = 16_000
) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=form, subtype=subtype)
    return file.getvalue()


def wav(rng: Random) -> bytes:
    return encoded(noise(rng))


def flac(rng: Random) -> bytes:
    return encoded(noise(rng), "FLAC")


def ogg(rng: Random, frames: int = 40_000, subtype: str = "VORBIS", rate: int = 16_000) -> bytes:
    return encoded(noise(rng, frames), "OGG", subtype, rate)


def mp3(rng: Random) -> bytes:
    return encoded(noise(rng, 40_000), "MP3")


def poisoned(rng: Random, value: float, subtype: str = "FLOAT") -> bytes:
    wave = noise(rng).astype(np.float64)
    wave[rng.randrange(len(wave))] = value
    return encoded(wave, "WAV", subtype)


@lru_cache
def silence(seconds: float) -> bytes:
    """FLAC of 8 kHz, of which a byte holds half a second."""
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 8_000, 1, "PCM_16", format="FLAC") as sound:
        left = round(8_000 * seconds)
        while left > 0:
            sound.write(np.zeros(min(left, 1 << 22), np.int16))
            left -= 1 << 22
    return file.getvalue()


def patched(data: bytes, at: int, form: str, *values: int) -> bytes:
    """Values packed as `struct` does, over what lies at that place."""
    forged = bytearray(data)
    struct.pack_into(form, forged, at, *values)
    return bytes(forged)


CHANNELS, RATE, ALIGN, BITS, DATA_SIZE = 22, 24, 32, 34, 40  # of a WAV as libsndfile writes it
OPUS_CHANNELS = 37  # of an Ogg file whose first page has one packet


def with_chunk(data: bytes, chunk: bytes) -> bytes:
    """A RIFF file with another chunk in front."""
    return data[:12] + chunk + data[12:]


def streaminfo(
    data: bytes, rate: int = 16_000, channels: int = 1, bits: int = 16, total: int = 6_000
) -> bytes:
    """A FLAC file whose first block of metadata says something else (RFC 9639, 8.2)."""
    return patched(data, 18, ">Q", rate << 44 | channels - 1 << 41 | bits - 1 << 36 | total)


def with_block(data: bytes, kind: int, content: bytes, size: int | None = None) -> bytes:
    """A FLAC file with another block of metadata behind the first."""
    size = len(content) if size is None else size
    return data[:42] + bytes([kind]) + size.to_bytes(3, "big") + content + data[42:]


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(path))  # a name of at most 107 bytes


def folder(path: Path) -> None:
    path.mkdir()
    (path / "loop").symlink_to(path, target_is_directory=True)


def hole(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def named(odd: bytes) -> Callable[[Path], None]:
    """A recording that is well, but for its name."""

    def place(path: Path) -> None:
        name = os.fsencode(path.stem) + odd + os.fsencode(path.suffix)
        path.with_name(os.fsdecode(name)).write_bytes(wav(Random(0)))

    return place


LIST = (
    # Truncations
    Family("wav-cut-in-its-samples.wav", "heard", lambda rng: wav(rng)[:5_001]),
    Family("wav-cut-in-its-header.wav", "not_audio", lambda rng: wav(rng)[: rng.randrange(5, 40)]),
    Family("wav-that-is-a-header-alone.wav", "empty", lambda rng: wav(rng)[:44]),
    Family("flac-cut-in-its-frames.flac", "cut_short not_audio", lambda rng: flac(rng)[:4_000]),
    Family(
        "flac-cut-in-its-metadata.flac", "not_audio", lambda rng: flac(rng)[: rng.randrange(5, 42)]
    ),
    Family("ogg-cut.ogg", "heard cut_short", lambda rng: ogg(rng)[:-4_000]),
    Family("opus-cut.opus", "heard cut_short", lambda rng: ogg(rng, subtype="OPUS")[:-3_000]),
    Family("mp3-cut.mp3", "heard cut_short", lambda rng: mp3(rng)[:-3_000]),
    Family("aiff-cut.wav", "heard cut_short", lambda rng: encoded(noise(rng), "AIFF")[:5_001]),
    Family("nothing.wav", "empty", lambda rng: b""),
    Family("one-byte.flac", "not_audio", lambda rng: b"f"),
    # Lying headers
    Family(
        "flac-that-claims-2-to-the-36-samples.flac",
        "cut_short",
        lambda rng: streaminfo(flac(rng), total=(1 << 36) - 1),
    ),
    Family("flac-that-claims-no-samples.flac", "heard", lambda rng: streaminfo(flac(rng), total=0)),
    Family(
        "flac-that-claims-fewer-samples.flac", "heard", lambda rng: streaminfo(flac(rng), total=100)
    ),
    Family("flac-of-rate-0.flac", "not_audio rate", lambda rng: streaminfo(flac(rng), rate=0)),
    Family(
        "flac-of-rate-2-to-the-20.flac",
        "rate",
        lambda rng: streaminfo(flac(rng), rate=(1 << 20) - 1),
    ),
    Family(
        "flac-that-claims-8-channels.flac",
        "heard not_audio cut_short",
        lambda rng: streaminfo(flac(rng), channels=8),
    ),
    Family(
        "flac-that-claims-32-bits.flac",
        "heard not_audio cut_short",
        lambda rng: streaminfo(flac(rng), bits=32),
    ),
    Family(
        "flac-block-that-claims-16-megabytes.flac",
        "not_audio cut_short heard",
        lambda rng: with_block(flac(rng), 4, b"", (1 << 24) - 1),
    ),
    Family(
        "flac-that-claims-2-to-the-32-comments.flac",
        "not_audio cut_short heard",
        lambda rng: with_block(flac(rng), 4, struct.pack("<II", 0, 0xFFFFFFFF)),
    ),
    Family(
        "flac-picture-that-claims-4-gigabytes.flac",
        "not_audio cut_short heard",
        lambda rng: with_block(flac(rng), 6, struct.pack(">II", 3, 0xFFFFFFFF) + bytes(24)),
    ),
    Family(
        "flac-seek-table-to-nowhere.flac",
        "heard not_audio cut_short",
        lambda rng: with_block(flac(rng), 3, struct.pack(">QQH", (1 << 64) - 2, (1 << 63), 1) * 50),
    ),
    Family(
        "riff-of-size-0.wav", "heard not_audio empty", lambda rng: patched(wav(rng), 4, "<I", 0)
    ),
    Family(
        "riff-of-size-2-to-the-32.wav", "heard", lambda rng: patched(wav(rng), 4, "<I", 0xFFFFFFFF)
    ),
    Family("data-of-size-0.wav", "heard empty", lambda rng: patched(wav(rng), DATA_SIZE, "<I", 0)),
    Family(
        "data-of-size-2-to-the-32.wav",
        "heard",
        lambda rng: patched(wav(rng), DATA_SIZE, "<I", 0xFFFFFFFF),
    ),
    Family(
        "no-channels.wav", "not_audio channels", lambda rng: patched(wav(rng), CHANNELS, "<H", 0)
    ),
    Family("channels-1024.wav", "channels", lambda rng: encoded(noise(rng, 8, 1_024))),
    Family(
        "channels-65535.wav",
        "not_audio channels",
        lambda rng: patched(wav(rng), CHANNELS, "<H", 65_535),
    ),
    Family("rate-of-1.wav", "rate", lambda rng: patched(wav(rng), RATE, "<I", 1)),
    Family("rate-of-0.wav", "not_audio rate", lambda rng: patched(wav(rng), RATE, "<I", 0)),
    Family(
        "rate-of-2-to-the-31.wav",
        "not_audio rate",
        lambda rng: patched(wav(rng), RATE, "<I", 1 << 31),
    ),
    Family(
        "samples-of-no-bytes.wav",
        "heard not_audio",
        lambda rng: patched(wav(rng), ALIGN, "<HH", 0, 0),
    ),
    Family(
        "samples-of-65535-bits.wav",
        "heard not_audio",
        lambda rng: patched(wav(rng), BITS, "<H", 65_535),
    ),
    Family(
        "chunk-that-swallows-the-samples.wav",
        "heard not_audio empty",
        lambda rng: with_chunk(wav(rng), b"LIST" + b"\xff" * 4),
    ),
    Family(
        "ten-thousand-chunks.wav",
        "heard not_audio",
        lambda rng: with_chunk(wav(rng), (b"junk" + bytes(4)) * 10_000),
    ),
    Family(
        "aiff-that-claims-2-to-the-32-frames.wav",
        "heard not_audio cut_short",
        lambda rng: patched(encoded(noise(rng), "AIFF"), 22, ">I", 0xFFFFFFFF),
    ),
    Family(
        "w64-that-claims-2-to-the-63-bytes.wav",
        "heard not_audio cut_short empty",
        lambda rng: patched(encoded(noise(rng), "W64"), 16, "<Q", (1 << 63) - 1),
    ),
    Family(
        "rf64-that-claims-2-to-the-63-bytes.wav",
        "heard not_audio cut_short empty",
        lambda rng: patched(encoded(noise(rng), "RF64"), 20, "<QQQ", *[(1 << 63) - 1] * 3),
    ),
    # Wrong containers
    Family("mp3-called-wav.wav", "heard", lambda rng: mp3(rng)),
    Family("ogg-called-flac.flac", "heard", lambda rng: ogg(rng)),
    Family("text.wav", "not_audio", lambda rng: b"the weather in paris is nice\n" * 40),
    Family(
        "page.mp3",
        "not_audio",
        lambda rng: b"<!DOCTYPE html><html><body>404 Not Found</body></html>" * 9,
    ),
    Family(
        "playlist.mp3", "not_audio", lambda rng: b"#EXTM3U\n#EXTINF:1,secret\nfile:///etc/passwd\n"
    ),
    Family(
        "zipped.wav", "not_audio", lambda rng: b"PK\x03\x04\x14\0\0\0\x08\0" + rng.randbytes(3_000)
    ),
    Family(
        "picture.ogg",
        "not_audio",
        lambda rng: b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + rng.randbytes(2_000),
    ),
    Family(
        "program.wav",
        "not_audio",
        lambda rng: b"\x7fELF\x02\x01\x01" + bytes(9) + rng.randbytes(2_000),
    ),
    Family("film.wav", "not_audio", lambda rng: patched(wav(rng), 8, "4s", b"AVI ")),
    Family(
        "wav-of-a-codec-that-nobody-has.wav",
        "not_audio heard",
        lambda rng: patched(wav(rng), 20, "<H", 0x2001),
    ),
    Family("random-bytes.flac", "not_audio heard cut_short", lambda rng: rng.randbytes(20_000)),
    Family("zeros.wav", "not_audio", lambda rng: bytes(20_000)),
    Family(
        "wav-with-a-zip-behind-it.wav",
        "heard",
        lambda rng: wav(rng) + b"PK\x03\x04" + rng.randbytes(2_000),
    ),
    Family(
        "tag-that-claims-256-megabytes.mp3",
        "heard not_audio cut_short",
        lambda rng: b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + mp3(rng),
    ),
    # Samples
    Family("not-a-number.wav", "nan", lambda rng: poisoned(rng, np.nan)),
    Family("infinity.wav", "nan", lambda rng: poisoned(rng, -np.inf)),
    Family("sample-of-1e30.wav", "too_loud", lambda rng: poisoned(rng, 1e30)),
    Family("sample-of-1e300.wav", "nan", lambda rng: poisoned(rng, 1e300, "DOUBLE")),
    Family(
        "sample-of-1e-minus-40.wav",
        "heard",
        lambda rng: encoded(np.full((6_000, 1), 1e-40, np.float32), "WAV", "FLOAT"),
    ),
    Family("no-samples.flac", "empty", lambda rng: encoded(noise(rng, 0), "FLAC")),
    Family("one-sample.wav", "heard", lambda rng: encoded(noise(rng, 1))),
    # Streams behind streams
    Family("chained-ogg.ogg", "chained", lambda rng: b"".join(ogg(rng) for _ in range(3))),
    Family(
        "long-chained-ogg-of-two-rates-and-codecs.ogg",
        "chained",
        lambda rng: ogg(rng, 400_000, rate=44_100) + ogg(rng, 400_000, "OPUS", 48_000),
    ),
    Family(
        "ogg-with-wrong-sums.ogg",
        "heard not_audio cut_short",
        lambda rng: ogg(rng).replace(b"OggS\0\0", b"OggS\0\1"),
    ),
    Family(
        "opus-of-255-channels.opus",
        "not_audio channels heard",
        lambda rng: patched(ogg(rng, subtype="OPUS"), OPUS_CHANNELS, "B", 255),
    ),
    Family("flac-behind-flac.flac", "heard cut_short", lambda rng: flac(rng) + flac(rng)),
    Family("silence-bomb.flac", "too_long", lambda rng: silence(BOMB)),
    # What is no plain file
    Family("fifo.wav", "not_a_file", place=os.mkfifo),
    Family("socket.wav", "not_a_file", place=unix_socket),
    Family("link-to-a-device.wav", "not_a_file", place=lambda path: path.symlink_to("/dev/zero")),
    Family("link-to-itself.wav", "missing", place=lambda path: path.symlink_to(path.name)),
    Family("link-to-nothing.wav", "missing", place=lambda path: path.symlink_to("nowhere.wav")),
    Family("folder.wav", "not_a_file", place=folder),
    Family("hole-of-a-terabyte.wav", "not_audio", place=hole),
    # Names, of files that are well
    Family("line-break.wav", "heard", place=named(b"\n\r\x1b[2Jspirit: all is well\n")),
    Family("bytes-that-are-no-text.wav", "heard", place=named(b"\xff\xfe\xc3\x28")),
    Family("250-bytes.wav", "heard", place=named(b"a" * 220)),
    Family("shell.wav", "heard", place=named(b"; rm -rf $(HOME) %s%n {0} .. ..%2f | ' \" -")),
)
FAMILIES = {family.name: family for family in LIST}


def damaged(data: bytes, rng: Random) -> bytes:
    """The same bytes after an accident, or a forgery near their beginning."""
    some = bytearray(data or b"\0")
    at = rng.randrange(len(some))
    match rng.randrange(6):
        case 0:
            del some[at:]
        case 1:
            for _ in range(rng.randrange(1, 30)):
                some[rng.randrange(len(some))] ^= 1 << rng.randrange(8)
        case 2 | 3:
            at = rng.randrange(min(len(some), 80))
            extreme = rng.choice([b"\0", b"\xff", b"\x7f", b"\x80", b"\x01"])
            some[at : at + rng.choice([1, 2, 4, 8])] = extreme * rng.choice([1, 2, 4, 8])
        case 4:
            some[at:at] = some[rng.randrange(len(some)) :][:5_000]
        case 5:
            some[at : at + 500] = bytes(min(500, len(some) - at))
    return bytes(some)


def write(out: Path, count: int, seed: int = 0) -> dict[Path, Family]:
    """Make `count` files; the first of each family is as it is meant to be, the others damaged."""
    made: dict[Path, Family] = {}
    number = turn = 0
    while number < count:
        family = LIST[turn % len(LIST)]
        first = turn < len(LIST)
        turn += 1
        if not first and (family.make is None or family.name == "silence-bomb.flac"):
            continue  # one of a kind
        rng = Random(f"{seed} {turn}")
        path = out / f"{number:05d}-{family.name}"
        if family.place is not None:
            before = set(out.iterdir())
            family.place(path)
            (path,) = set(out.iterdir()) - before
        else:
            data = family.make(rng)
            path.write_bytes(data if first else damaged(data, rng))
            path.with_suffix(".txt").write_text(TRANSCRIPT)
        made[path] = family
        number += 1
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=len(FAMILIES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    made = write(options.out, options.count, options.seed)
    print(f"{len(made)} files of {len(FAMILIES)} families in {options.out}")


if __name__ == "__main__":
    main()
