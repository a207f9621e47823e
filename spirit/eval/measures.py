"""The figures of `spirit eval tiny`, from its kept results alone."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from spirit.eval import figures, telling
from spirit.eval.compare import Values
from spirit.eval.figures import Figure, Ratio, WordErrors
from spirit.eval.report import Part, Result

AUDIBLE = 0.04
"""Seconds below which a segment is no speech: one frame of units."""
WITHIN = 0.15
"""Share of a recording's length by which speech may be longer or shorter."""
SIDES = ("heard", "original", "spoken", "resynthesis")
"""Parts that count word errors."""
NATURAL = "neutral"
"""The style of recordings that are in the voice's own pitch and rate."""
LENGTHS = (
    ("duration", "duration.within", "seconds", ""),
    ("duration.neutral", "duration.neutral_within", "seconds", NATURAL),
    ("duration.styled", "duration.styled_within", "styled_seconds", ""),
)
"""How long speech lasts against the recording: a ratio, the share within 15 %, of what, and beside
which recordings."""


def figures_of(found: Mapping[str, Part]) -> dict[str, Figure]:
    """The figures, from the results of the parts alone; of parts that were not asked there are
    none."""
    spoken = found["spoken"]
    result: dict[str, Figure] = {}
    for side in SIDES:
        result[side] = figures.word_error_rate(_errors(found[side], spoken))
        # The model speaks in a voice of its own choice, whoever said the sentence.
        voices = {entry["speaker"] for entry in found[side].values()} if side != "spoken" else ()
        for speaker in sorted(voices):
            of = [name for name, entry in found[side].items() if entry["speaker"] == speaker]
            result[f"{side}.{speaker}"] = figures.word_error_rate(_errors(found[side], of))
        if side == "heard" and "noisy" in found:
            result["heard.noise"] = figures.word_error_rate(_errors(found["noisy"], spoken))
        if side in ("spoken", "resynthesis"):
            result[f"{side}.above_original"] = figures.word_error_difference(
                _errors(found[side], spoken), _errors(found["original"], spoken)
            )
    values = _others(found)
    return result | {name: figures.rate(list(of.values())) for name, of in values.items() if of}


def values_of(found: Mapping[str, Part]) -> Values:
    """What every utterance adds to a figure, to compare two models by.

    Like the figures, those of all voices are without the human one, which has its own.
    """
    sides = {side: found[side] for side in SIDES}
    sides |= {"heard.noise": found["noisy"]} if "noisy" in found else {}
    values: dict[str, dict[str, Ratio]] = {}
    for side, part in sides.items():
        for name, entry in part.items():
            figure = side if name in found["spoken"] else f"{side}.{entry['speaker']}"
            added = (float(entry["errors"]), float(entry["words"]))
            values.setdefault(figure, {})[name] = added
    return values | _others(found)


def _others(found: Mapping[str, Part]) -> dict[str, dict[str, Ratio]]:
    """All but the word errors: figure to item to what it adds above and below the line."""
    again, spoken = found["resynthesis"], found["spoken"]
    values: dict[str, dict[str, Ratio]] = {
        "f0_correlation": {
            name: (entry["correlation"], 1.0)
            for name, entry in again.items()
            if entry["correlation"] is not None
        },
        "voicing_error": {name: (entry["voicing_error"], 1.0) for name, entry in again.items()},
    }
    for ratio, within, key, style in LENGTHS:
        values[ratio] = {
            item: (float(entry[key]), float(entry["original_seconds"]))
            for item, entry in spoken.items()
            if key in entry and "original_seconds" in entry and style in ("", entry.get("style"))
        }
        values[within] = {
            item: (float(abs(ours / theirs - 1) <= WITHIN), 1.0)
            for item, (ours, theirs) in values[ratio].items()
        }
    values |= _told_apart(again, spoken)
    for way in ("completed", "chained"):
        for side, key in (("text", "accepted"), ("speech", "near")):
            part = found.get(way, {})
            values[f"{way}.{side}"] = {item: (float(e[key]), 1.0) for item, e in part.items()}
    values["any.both"] = {name: (float(_both(e)), 1.0) for name, e in found["any"].items()}
    return values


def _told_apart(again: Part, spoken: Part) -> dict[str, dict[str, Ratio]]:
    """How often a regression that was trained on recordings alone tells the voice that was asked
    for and the style that was resynthesized; the same for the recordings, and what guessing the
    most frequent one gives."""
    originals = {n: e["original_features"] for n, e in again.items() if "original_features" in e}
    speakers = {name: str(again[name]["speaker"]) for name in originals}
    styles = {name: str(again[name]["style"]) for name in originals}
    named = {n: e["features"] for n, e in spoken.items() if "features" in e and n in originals}
    copies = {name: again[name]["features"] for name in originals}
    values: dict[str, dict[str, Ratio]] = {}
    # What is high for one voice is low for another.
    level, levelled = (telling.centered(side, speakers, originals) for side in (originals, copies))
    asked: list[tuple[str, dict[str, str], telling.Features, telling.Features]] = [
        ("voices", speakers, originals, named),
        ("style", styles, level, levelled),
    ]
    for figure, labels, given, judged in asked:
        told = telling.tell(given, labels, judged)
        if told is None:
            continue
        usual = Counter(labels.values()).most_common(1)[0][0]
        guessed = dict.fromkeys(labels, usual)
        for name, said in (("", told[1]), (".original", told[0]), (".chance", guessed)):
            right = {item: (float(said[item] == labels[item]), 1.0) for item in said}
            values[figure + name] = right
        if figure == "voices":
            for voice in sorted(set(labels.values())):
                of = {item: v for item, v in values[figure].items() if labels[item] == voice}
                values[f"{figure}.{voice}"] = of
    return values


def _errors(part: Part, names: Any) -> list[WordErrors]:
    return [WordErrors(part[name]["errors"], part[name]["words"]) for name in names]


def _both(entry: Result) -> bool:
    segments = entry["segments"]
    written = any(s.get("text", "").strip() for s in segments)
    return written and any(s.get("speech", 0.0) >= AUDIBLE for s in segments)
