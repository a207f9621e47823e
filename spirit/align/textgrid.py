"""Praat's TextGrid, in its long and its short text format.

Praat reads a text file as a sequence of quoted strings, flags in angle brackets and numbers that
stand alone, whatever is written around them (its manual: "TextGrid file formats"); so one reader
serves both formats.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from spirit.units import SAMPLE_RATE, Word

SILENT = frozenset({"", "sp", "sil", "spn", "<eps>", "<sil>", "<p:>", "#"})
"""Labels of intervals in which aligners say that there is no word."""
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|(<\w+>)|(!.*)|(\S+)')
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def read_textgrid(path: Path, tier: str = "words") -> list[Word]:
    """The labelled intervals of a tier, times in samples at 16 kHz; silence is left out.

    UTF-8 and UTF-16 are told apart by their first bytes. Raises ValueError that names the file if
    it is no TextGrid or has no interval tier of that name.
    """
    tokens = _tokens(_decode(path))
    names = []
    try:
        if next(tokens) != "ooTextFile" or next(tokens) != "TextGrid":
            raise ValueError("it does not begin as a TextGrid in a text format of Praat")
        _number(tokens), _number(tokens)
        if next(tokens) != "<exists>":
            raise ValueError("it has no tiers")
        for _ in range(int(_number(tokens))):
            name, is_intervals, found = _tier(tokens)
            if name == tier and is_intervals:
                return found
            names.append(name)
    except (StopIteration, RuntimeError):
        raise ValueError(f"{path}: it is cut short; export it again from Praat") from None
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: no TextGrid ({error}); save it as text in Praat") from None
    raise ValueError(f"{path}: no interval tier {tier!r}; give --tier, one of {', '.join(names)}")


def _decode(path: Path) -> str:
    content = path.read_bytes()
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: neither UTF-8 nor UTF-16 ({error.reason}); save it again"
        ) from None


def _tokens(text: str) -> Iterator[str | float]:
    """Strings, flags (in their brackets) and numbers, in order."""
    for match in _TOKEN.finditer(text):
        quoted, flag, _, other = match.groups()
        if quoted is not None:
            yield quoted.replace('""', '"')
        elif flag:
            yield flag
        elif other and _NUMBER.fullmatch(other):
            yield float(other)


def _tier(tokens: Iterator[str | float]) -> tuple[str, bool, list[Word]]:
    """Name, whether it has intervals, and the words of the next tier."""
    kind, name = _string(tokens), _string(tokens)
    if kind not in ("IntervalTier", "TextTier"):
        raise ValueError(f"a tier of the class {kind!r}")
    _number(tokens), _number(tokens)
    intervals, words = kind == "IntervalTier", []
    for _ in range(int(_number(tokens))):
        start = _number(tokens)
        stop = _number(tokens) if intervals else start
        label = _string(tokens).strip()
        if label.lower() not in SILENT:
            words.append(Word(label, round(start * SAMPLE_RATE), round(stop * SAMPLE_RATE)))
    return name, intervals, words


def _number(tokens: Iterator[str | float]) -> float:
    token = next(tokens)
    if not isinstance(token, float):
        raise ValueError(f"{token!r} stands where a number is due")
    return token


def _string(tokens: Iterator[str | float]) -> str:
    token = next(tokens)
    if not isinstance(token, str):
        raise ValueError(f"{token:g} stands where a label is due")
    return token
