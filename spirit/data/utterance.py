"""What a corpus says of one recording, and the checks that every kind of corpus shares."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from spirit.sound import Sound
from spirit.units import SAMPLE_RATE, Word


@dataclass(frozen=True)
class Utterance:
    """One recording and what is known about it. Times are samples on the 16 kHz clock, from
    the beginning of its stretch."""

    id: str
    audio: Path | Sound
    """A whole local file, or a `Sound`: a stretch of one, a URL, a row of a Parquet file."""
    seconds: float | None = None
    text: str = ""
    words: tuple[Word, ...] = ()
    speaker: str = ""
    language: str = ""
    style: str = ""
    phones: tuple[Word, ...] = ()
    """Phones as `Word`s (name, start, stop), where the corpus knows them."""


def string(entry: Mapping[str, Any], key: str) -> str:
    """The text under `key`, "" where there is none. Raises `ValueError` for anything else."""
    value = entry.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"`{key}` is {value!r}, not a string")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"`{key}` holds half of a character ({error.reason})") from error
    return value


def items(entry: Mapping[str, Any], key: str) -> list[Any]:
    """The list under `key`, empty where there is none. Raises `ValueError` for anything else."""
    value = entry.get(key) or []
    if not isinstance(value, list):
        raise ValueError(f"`{key}` is not a list")
    return value


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no truth value."""
    return type(value) in (int, float) and math.isfinite(value)


def seconds(entry: Mapping[str, Any], key: str) -> float | None:
    """The length under `key`, None where there is none. Raises `ValueError` for anything else."""
    value = entry.get(key)
    if value is None:
        return None
    if not is_number(value) or value < 0:
        raise ValueError(f"`{key}` is {value!r}, not a length in seconds")
    return float(value)


def stretch(start: float, duration: float | None) -> tuple[int, int | None]:
    """Seconds to the samples `(start, stop)` of the 16 kHz clock; no duration: up to the end.

    Raises `ValueError` if there is not one sample in them.
    """
    if duration is None:
        return round(start * SAMPLE_RATE), None
    first, last = round(start * SAMPLE_RATE), round((start + duration) * SAMPLE_RATE)
    if start < 0 or last <= first:
        raise ValueError(f"{duration:g} s from {start:g} s on are no stretch of a recording")
    return first, last


def check_order(spans: Sequence[Word], key: str) -> None:
    """Raise `ValueError` if words or phones are not in order of time."""
    for before, after in pairwise(spans):
        if after.start < before.start or after.stop < before.stop:
            raise ValueError(f"`{key}` are not in order of time at {after.text!r}")
