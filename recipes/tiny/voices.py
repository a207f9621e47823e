"""The synthetic voices of the corpus: flite, with pitch, spread and rate set per utterance.

What is set is known exactly, so every recording comes with a true style label; flite prints where
each phone ends, so every word comes with its true place.
"""

import os
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from jaxtyping import Float

RATE = 16_000
FLITE = ("flite", "install it with `apt-get install flite`")

VOICES = {"slt": (172.0, 27.0), "rms": (98.0, 24.0), "awb": (132.0, 25.0), "kal16": (95.0, 11.0)}
"""A voice's own mean and spread of F0 in Hz, read from its data: setting these changes nothing."""

NATURAL = ((0.95, 1.05), (0.8, 1.2), (0.94, 1.06))
"""Ranges of F0 mean, F0 spread and speaking rate, as factors of the voice's own."""

STYLES = {
    "neutral": NATURAL,
    "high": ((1.22, 1.42), (0.8, 1.2), (0.94, 1.06)),
    "low": ((0.70, 0.82), (0.8, 1.2), (0.94, 1.06)),
    "lively": ((0.95, 1.05), (1.8, 2.6), (0.94, 1.06)),
    "flat": ((0.95, 1.05), (0.25, 0.45), (0.94, 1.06)),
    "fast": ((0.95, 1.05), (0.8, 1.2), (1.25, 1.5)),
    "slow": ((0.95, 1.05), (0.8, 1.2), (0.68, 0.8)),
    "excited": ((1.22, 1.42), (1.8, 2.6), (1.2, 1.4)),
    "sad": ((0.70, 0.82), (0.25, 0.45), (0.7, 0.82)),
}
BANDS = 10
"""Each range is cut into this many bands; the odd ones belong to the held-out set alone."""


@dataclass(frozen=True)
class Settings:
    """What flite is told: F0 mean and spread in Hz, and the rate as a factor of the voice's own."""

    f0_mean: float
    f0_spread: float
    rate: float


@dataclass(frozen=True)
class Phone:
    """A phone and the samples it covers."""

    name: str
    start: int
    stop: int


def draw_settings(voice: str, style: str, heldout: bool, rng: random.Random) -> Settings:
    """Draw settings for a style, each from the bands of training or from those it never sees."""
    factors = []
    for low, high in STYLES[style]:
        band = 2 * rng.randrange(BANDS // 2) + heldout
        factors.append(low + (high - low) * (band + rng.uniform(0.02, 0.98)) / BANDS)
    mean, spread = VOICES[voice]
    return Settings(
        round(mean * factors[0], 2), round(spread * factors[1], 2), round(factors[2], 4)
    )


def require() -> None:
    """Raise a one-line ValueError where flite is missing."""
    if shutil.which(FLITE[0]) is None:
        raise ValueError(f"{FLITE[0]} is not installed; {FLITE[1]}")


def prepare(folder: Path) -> None:
    """Write into `folder` the one voice that must be changed before use.

    In flite 2.2, rms takes its F0 from a second model that ignores every setting. Its data say at
    their end (an integer before the last float) whether that model is used; without it rms obeys
    like the others.
    """
    path = folder / "rms.flitevox"
    if path.exists():
        return
    dumped = folder / f"rms.{os.getpid()}.partial"
    subprocess.run(["flite", "-voice", "rms", "-voicedump", str(dumped)], check=True)
    data = bytearray(dumped.read_bytes())
    assert data[-8:-4] == bytes([1, 0, 0, 0]), "not the rms of flite 2.2"
    data[-8] = 0
    dumped.write_bytes(data)
    dumped.replace(path)


def speak(
    text: str, voice: str, settings: Settings, folder: Path
) -> tuple[Float[np.ndarray, " samples"], list[Phone]]:
    """The recording at 16 kHz and its phones, pauses too; `folder` is where `prepare` wrote."""
    path = folder / f"{os.getpid()}.wav"
    sets = {
        "duration_stretch": 1 / settings.rate,
        "int_f0_target_mean": settings.f0_mean,
        "int_f0_target_stddev": settings.f0_spread,
    }
    command = ["flite", "-voice", str(folder / "rms.flitevox") if voice == "rms" else voice]
    for name, value in sets.items():
        command += ["--setf", f"{name}={value:.5f}"]
    command += ["-psdur", "-t", text, "-o", str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    wave, rate = soundfile.read(path, dtype="float32")
    path.unlink()
    assert rate == RATE, rate
    phones, start = [], 0
    for item in printed.split():
        name, _, end = item.rpartition(":")
        stop = min(round(float(end) * RATE), len(wave))
        phones.append(Phone(name, start, stop))
        start = stop
    return wave, phones


def pronunciations(words: list[str]) -> dict[str, list[str]]:
    """How flite says each word by itself: the phones without pauses."""
    spoken = subprocess.run(
        ["flite", "-voice", "kal16", "-ps", "-o", "none", "-f", "/dev/stdin"],
        input="\n\n".join(words) + "\n\n",
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = [line.split() for line in spoken.splitlines() if line.strip()]
    assert len(lines) == len(words), f"flite said {len(lines)} of {len(words)} words"
    return {
        word: [phone for phone in line if phone != "pau"]
        for word, line in zip(words, lines, strict=True)
    }


def locate(
    text: str, phones: list[Phone], alone: dict[str, list[str]], tolerance: int = 1
) -> list[tuple[str, int, int]] | None:
    """Where each word is: (word, start, stop) in samples, or None where the phones do not tell.

    The phones of the sentence are matched with those of its words said alone (edit distance). Some
    change in context; more than `tolerance` missing or extra, or a third changed, is doubt.
    """
    words = text.split()
    expected = [(phone, index) for index, word in enumerate(words) for phone in alone[word]]
    heard = [phone for phone in phones if phone.name != "pau"]
    change, gap = 2, 5
    cost = [[gap * j for j in range(len(heard) + 1)]]
    for i, (phone, _) in enumerate(expected, 1):
        above, row = cost[-1], [gap * i]
        for j, found in enumerate(heard, 1):
            matched = above[j - 1] + change * (phone != found.name)
            row.append(min(matched, above[j] + gap, row[-1] + gap))
        cost.append(row)
    spans: list[list[Phone]] = [[] for _ in words]
    i, j, gaps, changes = len(expected), len(heard), 0, 0
    while i or j:
        differs = not (i and j) or expected[i - 1][0] != heard[j - 1].name
        if i and j and cost[i][j] == cost[i - 1][j - 1] + change * differs:
            i, j, changes = i - 1, j - 1, changes + differs
            spans[expected[i][1]].append(heard[j])
        elif i and cost[i][j] == cost[i - 1][j] + gap:
            i, gaps = i - 1, gaps + 1
        else:
            j, gaps = j - 1, gaps + 1
            spans[expected[max(i - 1, 0)][1]].append(heard[j])
    if gaps > tolerance or changes * 3 > len(expected) or not all(spans):
        return None
    return [
        (word, min(p.start for p in span), max(p.stop for p in span))
        for word, span in zip(words, spans, strict=True)
    ]
