"""`spirit eval swuggy` and its like: how often a model finds the right reading likelier.

A choice counts 1 where the right reading has the higher score, a share of 1 on a tie. Two scores
are told: the sum of the log likelihoods of the tokens that are judged, and their mean (as Spirit LM
reports). Judged are the tokens of the text, or all units, but no markers. A choice of several
voices counts by their mean, so that every item weighs the same; intervals are a bootstrap over
items.
"""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int

from spirit import commit
from spirit.audio import read_audio
from spirit.codec import Document, Segment
from spirit.engine import ranks
from spirit.eval.answers import Subject
from spirit.eval.compare import save_values
from spirit.eval.figures import Figure, mean
from spirit.eval.ledger import Result, collect, mark
from spirit.eval.suites import Choice, Reading, Suite, read
from spirit.eval.tiny import identify
from spirit.lm.score import likelihood
from spirit.pipeline import Spirit
from spirit.vocab import Want

SCORES = ("mean", "sum")
ROUNDS = 1
"""Raised when the same model would be asked in another way: older scores are then not taken."""


@dataclass(frozen=True)
class Verdict:
    """What a suite says about a model."""

    suite: str
    folder: str
    split: str
    """"" of a suite that has but one."""
    model: str
    items: int
    """That the figures are taken over."""
    skipped: dict[str, int]
    """Why what is not in them was left out: reason to how many."""
    figures: dict[str, Figure]
    """ "mean" and "sum", then "mean/voice/aud1" and so on for each class of each breakdown."""


def evaluate(
    name: str,
    model: str | Path,
    data: Path,
    out: Path,
    *,
    split: str = "dev",
    limit: int = 0,
    device: str = "auto",
    jobs: int = 2,
) -> Verdict:
    """Score a suite; `out` gets `figures.json`, `items.csv` and, where the suite has one, its
    submission file.

    Scores are kept one by one in `out`, so that an interrupted evaluation goes on. `limit` takes
    the first so many choices only. Raises ValueError for a folder of another layout.
    """
    folder, weights = identify(model)
    suite = read(name, data, split)
    choices = suite.choices[: limit or None]
    where = ranks.device(device).type
    origin = f"{weights}-{where}-{ROUNDS}"
    subject = Subject(folder.resolve(), device, out)
    wanted = {reading.key: reading for choice in choices for reading in choice.readings}
    if not limit:
        wanted |= {reading.key: reading for reading in suite.readings.values()}
    work = partial(score, subject=subject)
    read_files: dict[str, str] = {}
    marks = {key: mark((*one.given, *one.judged), read_files) for key, one in wanted.items()}
    scores = collect(
        out / f"{name}.jsonl", wanted, work, origin=origin, jobs=jobs, title=name, marks=marks
    )
    commit.text(out / "items.csv", _table(choices, scores))
    if suite.submission and not limit:
        commit.text(out / suite.submission, _submission(suite, scores))
    verdict = _judge(suite, choices, scores, str(folder))
    usable = [choice for choice in choices if _is_scored(choice, scores)]
    told = {kind: _by_item(usable, scores, kind) for kind in SCORES}
    save_values(
        out,
        f"{name} {suite.split}".strip(),
        {kind: {item: (value, 1.0) for item, value in told[kind].items()} for kind in SCORES},
    )
    commit.json_file(out / "figures.json", asdict(verdict))
    return verdict


def score(reading: Reading, subject: Subject) -> Result:
    """{"sum": log likelihood in nats, "tokens": how many were judged}; {"fault": a line} where it
    cannot be read."""
    spirit = subject.load()
    try:
        ids, start = lay_out(spirit, reading)
        if start >= len(ids):
            return {"fault": "nothing in it that could be judged"}
        return {"sum": likelihood(spirit.model, ids, start), "tokens": len(ids) - start}
    except ValueError as error:
        return {"fault": " ".join(str(error).split())}


def lay_out(spirit: Spirit, reading: Reading) -> tuple[Int[np.ndarray, " tokens"], int]:
    """The ids of a reading, and where what is judged begins.

    Raises ValueError for sound that cannot be read.
    """
    codec = spirit.tokenizer.codec
    given, judged = reading.given, reading.judged
    sounds = [isinstance(part, Path) for part in (*given, *judged)]
    if all(sounds):
        before, after = ([read_audio(Path(part)) for part in parts] for parts in (given, judged))
        tracks = spirit.tokenizer.encoder.encode(np.concatenate([*before, *after]))
        units, onsets = tracks.timed()
        border = int(np.searchsorted(onsets, sum(map(len, before))))
        return codec.encode(Document((units,))), len(codec.prompt((), "speech")) + border
    if not any(sounds):
        ids = codec.encode(Document((" ".join(map(str, [*given, *judged])),)))
        opening = codec.prompt((), "text")
        if given:
            opening = codec.encode(Document((" ".join(map(str, given)),)))
        # A piece may reach over the border: it is judged as a whole.
        shorter = min(len(opening), len(ids))
        differ = np.flatnonzero(opening[:shorter] != ids[:shorter])
        return ids, int(differ[0]) if len(differ) else shorter
    segments = [_segment(spirit, parts) for parts in (given, judged)]
    want: Want = "speech" if isinstance(judged[0], Path) else "text"
    return codec.encode(Document(tuple(segments))), len(codec.prompt(segments[:1], want))


def _segment(spirit: Spirit, parts: Sequence[Path | str]) -> Segment:
    if isinstance(parts[0], Path):
        return spirit.hear(np.concatenate([read_audio(Path(part)) for part in parts]))
    return " ".join(map(str, parts))


def _judge(
    suite: Suite,
    choices: Sequence[Choice],
    scores: Mapping[str, Result],
    model: str,
) -> Verdict:
    skipped: dict[str, int] = defaultdict(int)
    for _, reason in suite.skipped:
        skipped[reason] += 1
    if len(choices) < len(suite.choices):
        skipped["beyond --limit"] = len(suite.choices) - len(choices)
    usable = [choice for choice in choices if _is_scored(choice, scores)]
    if len(usable) < len(choices):
        skipped["not scored (items.csv says why)"] = len(choices) - len(usable)
    judged = {reading.key for choice in choices for reading in choice.readings}
    alone = {reading.key for reading in suite.readings.values()} & set(scores) - judged
    if lost := sum("fault" in scores[key] for key in alone):
        skipped[f"recording for the submission not scored ({suite.name}.jsonl says why)"] = lost
    if choices and not usable:
        raise ValueError(
            f"{suite.folder}: no item of {suite.name} could be scored; items.csv in the output "
            "folder says why"
        )
    figures: dict[str, Figure] = {}
    for kind in SCORES:
        figures |= _figures(usable, scores, kind)
    items = len({choice.item for choice in usable})
    place = str(suite.folder)
    return Verdict(suite.name, place, suite.split, model, items, dict(skipped), figures)


def _is_scored(choice: Choice, scores: Mapping[str, Result]) -> bool:
    return not any("fault" in scores[reading.key] for reading in choice.readings)


def _figures(
    choices: Sequence[Choice], scores: Mapping[str, Result], kind: str
) -> dict[str, Figure]:
    """The share of right choices, over all items and over each class of each breakdown."""
    classes: dict[str, list[Choice]] = defaultdict(list)
    for choice in choices:
        classes[kind].append(choice)
        for name, group in choice.groups.items():
            classes[f"{kind}/{name}/{group}"].append(choice)
    return {
        name: mean(list(_by_item(some, scores, kind).values())) for name, some in classes.items()
    }


def _by_item(
    choices: Sequence[Choice], scores: Mapping[str, Result], kind: str
) -> dict[str, float]:
    """Right or wrong, by item: the mean over voices of the mean over pairs."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for choice in choices:
        found[choice.item][choice.voice].append(_right(choice, scores, kind))
    return {
        item: float(np.mean([np.mean(pairs) for pairs in voices.values()]))
        for item, voices in found.items()
    }


def _right(choice: Choice, scores: Mapping[str, Result], kind: str) -> float:
    told = [_score(scores[reading.key], kind) for reading in choice.readings]
    best = max(told)
    return (told[0] == best) / told.count(best)


def _score(result: Result, kind: str) -> float:
    total = float(result["sum"])
    return total if kind == "sum" else total / int(result["tokens"])


def _table(choices: Sequence[Choice], scores: Mapping[str, Result]) -> str:
    """One line a choice: what was compared, the scores, and who won."""
    names = sorted({name for choice in choices for name in choice.groups})
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    sides = [("right", 0), ("wrong", 1)]
    table.writerow(
        ["item", "voice", *names, *(f"{side}" for side, _ in sides)]
        + [f"{side}_{what}" for side, _ in sides for what in ("sum", "tokens")]
        + [f"counts_by_{kind}" for kind in SCORES]
        + ["fault"]
    )
    for choice in choices:
        told = [scores[reading.key] for reading in choice.readings]
        fault = next((result["fault"] for result in told if "fault" in result), "")
        # Of several wrong ones the likeliest is shown.
        rival = max(
            range(1, len(told)), key=lambda i: float(told[i].get("sum", -math.inf)), default=1
        )
        shown = (0, rival)
        table.writerow(
            [choice.item, choice.voice, *(choice.groups.get(name, "") for name in names)]
            + [choice.readings[i].key for i in shown]
            + [told[i].get(what, "") for i in shown for what in ("sum", "tokens")]
            + [("" if fault else f"{_right(choice, scores, kind):g}") for kind in SCORES]
            + [fault]
        )
    return stream.getvalue()


def _submission(suite: Suite, scores: Mapping[str, Result]) -> str:
    """`<name> <score>`, one recording a line; the mean, which does not grow with the length."""
    lines = []
    for name, reading in suite.readings.items():
        result = scores[reading.key]
        # A recording without a score loses every comparison, as the scorer wants all of them.
        value = -math.inf if "fault" in result else _score(result, "mean")
        lines.append(f"{name} {value:.6f}\n")
    return "".join(lines)


def markdown(verdict: Verdict) -> str:
    """A table, and what is not in it."""
    title = f"{verdict.suite} {verdict.split}".strip()
    lines = [
        f"| {title} | by mean log likelihood | by sum | items |",
        "|---|---|---|---|",
    ]
    for name, figure in verdict.figures.items():
        kind, _, rest = name.partition("/")
        if kind == SCORES[0]:
            other = verdict.figures["/".join(filter(None, (SCORES[1], rest)))]
            lines.append(
                f"| {rest or 'all'} | {figure.percent()} | {other.percent()} | {figure.count} |"
            )
    left = ", ".join(f"{count} x {reason}" for reason, count in verdict.skipped.items())
    lines += ["", f"Left out: {left or 'nothing'}. Model: {verdict.model}, data: {verdict.folder}."]
    return "\n".join(lines)
