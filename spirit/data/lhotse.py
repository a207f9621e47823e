"""Lhotse cut manifests, JSON lines as lhotse writes them, read without lhotse."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from spirit.data.jsonl import blamed, read_lines
from spirit.data.utterance import Utterance, check_order, is_number, items, stretch, string
from spirit.sound import locate
from spirit.units import SAMPLE_RATE, Word

SLACK = SAMPLE_RATE // 10
"""Samples that words may lie outside of their cut: times are rounded."""


def is_lhotse(entry: Any) -> bool:
    """Whether a line is of one of lhotse's manifests."""
    if not isinstance(entry, dict) or "audio" in entry:
        return False
    kind = entry.get("type")
    cut = isinstance(kind, str) and kind.endswith("Cut")
    return cut or "recording" in entry or "recording_id" in entry or "sources" in entry


def read_lhotse(uri: str, root: str) -> Iterator[tuple[str, Utterance]]:
    """The cuts of a manifest; relative paths start at `root`. Of each cut: one recording in one
    file or URL, start, duration, and its supervisions with `word` alignments.

    Raises `ValueError` with the line for any other cut: mixed, padded, of several channels, changed
    on the fly, or made by a command, which is never run.
    """
    for where, line in read_lines(uri):
        with blamed(where):
            utterance = _utterance(json.loads(line), root)
        yield where, utterance


def _utterance(cut: Any, root: str) -> Utterance:
    if not isinstance(cut, dict):
        raise ValueError("a line of a manifest is one JSON object")
    if cut.get("type") != "MonoCut" or not isinstance(cut.get("recording"), dict):
        kind = cut.get("type") or "no cut"
        raise ValueError(f"is {kind}; only MonoCuts with their recording can be read, trim to them")
    start, duration = _seconds(cut, "start"), _seconds(cut, "duration")
    span = stretch(start, duration)
    recording = cut["recording"]
    whole = start == 0 and abs(_seconds(recording, "duration") - duration) < 0.001
    audio = locate(root, _source(recording), *(() if whole else span))
    if not (name := string(cut, "id")):
        raise ValueError("the cut has no id")
    said = items(cut, "supervisions")
    if not all(isinstance(one, dict) for one in said):
        raise ValueError("a supervision is one JSON object")
    said = sorted(said, key=lambda one: _seconds(one, "start"))
    words = tuple(word for one in said for word in _words(one, round(duration * SAMPLE_RATE)))
    check_order(words, "words")
    return Utterance(
        name,
        audio,
        duration,
        " ".join(text for one in said if (text := string(one, "text"))),
        words,
        _shared(said, "speaker"),
        _shared(said, "language"),
    )


def _source(recording: Mapping[str, Any]) -> str:
    sources = items(recording, "sources")
    if len(sources) != 1 or not isinstance(sources[0], dict):
        raise ValueError(f"the recording has {len(sources)} sources; one file or URL can be read")
    if len(items(recording, "channel_ids") or items(sources[0], "channels")) > 1:
        raise ValueError("the cut is one channel of several; write the channels to files apart")
    if recording.get("transforms"):
        raise ValueError("the recording is changed on the fly (transforms); write it to a file")
    kind, name = sources[0].get("type"), string(sources[0], "source")
    if kind not in ("file", "url") or not name:
        raise ValueError(f"the source is of type {kind!r}; only file and url are read")
    return name


def _words(supervision: Mapping[str, Any], samples: int) -> Iterator[Word]:
    """The words of an alignment, whose times are from the beginning of the cut."""
    alignment = supervision.get("alignment") or {}
    for entry in items(alignment, "word"):
        # Lhotse before 1.8 wrote objects.
        found = list(entry.values()) if isinstance(entry, dict) else entry
        if isinstance(found, list) and found[:1] == [""]:
            continue  # silence, in alignments of LibriSpeech
        if not isinstance(found, list) or not 3 <= len(found) <= 4 or not found[0]:
            raise ValueError(f"a word is [symbol, start, duration, score], not {entry!r}")
        text, start, duration, *score = found
        if not (isinstance(text, str) and is_number(start) and is_number(duration)):
            raise ValueError(f"a word is [symbol, start, duration, score], not {entry!r}")
        first, last = round(start * SAMPLE_RATE), round((start + duration) * SAMPLE_RATE)
        if not -SLACK <= first <= last <= samples + SLACK:
            raise ValueError(f"the word {text!r} at {start:g} s lies outside of its cut; trim it")
        known = score[0] if score and is_number(score[0]) else 1.0
        yield Word(text, min(max(0, first), samples), min(max(0, last), samples), float(known))


def _shared(supervisions: list[dict[str, Any]], key: str) -> str:
    """What all supervisions agree on, "" where they do not."""
    found = {string(one, key) for one in supervisions}
    return found.pop() if len(found) == 1 else ""


def _seconds(entry: Mapping[str, Any], key: str) -> float:
    value = entry.get(key)
    if not is_number(value):
        raise ValueError(f"`{key}` is {value!r}, not a time in seconds")
    assert isinstance(value, int | float)
    return float(value)
