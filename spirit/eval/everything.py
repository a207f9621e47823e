"""`spirit eval all`: every suite that there is data for, in one report."""

import csv
import datetime
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from spirit import commit
from spirit.audio import read_audio
from spirit.data.corpus import read_corpus
from spirit.eval import fewshot, generation, likelihood, resynthesis
from spirit.eval.figures import Figure
from spirit.eval.page import Line, page
from spirit.eval.prompts import Name
from spirit.eval.report import HUMAN, shown
from spirit.eval.suites import SUITES
from spirit.eval.tiny import choose, evaluate_tiny, identify
from spirit.eval.verdict import Verdict
from spirit.pipeline import Spirit

SHOWN = 5
"""Clips on the page."""
JUDGED: dict[str, Callable[..., Verdict]] = {
    "resynth": resynthesis.evaluate,
    "generation": generation.evaluate,
}
NAMES = ("tiny", *SUITES, *get_args(Name), *JUDGED)
MANIFESTS = ("heldout.jsonl", "corpus.jsonl", "manifest.jsonl")
"""What a corpus may be called inside the folder of its suite."""


def evaluate_all(
    model: str | Path,
    data: Path,
    out: Path,
    *,
    limit: int = 0,
    shots: int | None = None,
    device: str = "auto",
    jobs: int = 2,
) -> dict[str, dict[str, Figure]]:
    """Measure a model by every suite of which `data` has a folder; figures by suite.

    `data/swuggy`, `data/salmon` and so on hold a suite as downloaded; `data/tiny`, `data/asr`,
    `data/tts`, `data/intent`, `data/resynth` and `data/generation` a corpus as `heldout.jsonl` or
    `corpus.jsonl`. `out` gets a folder for each suite, `figures.json`, `README.md` and
    `index.html`, which say what was not measured, and what of a suite was left out. `limit` takes
    the first so many items of each; `shots` are the examples of asr, tts and intent, else the
    paper's. A suite that cannot be measured does not end the others.

    Raises ValueError where none can.
    """
    measured: dict[str, dict[str, Figure]] = {}
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    missing: list[str] = []
    settings: dict[str, Any] = {"device": device, "jobs": jobs}
    for name in NAMES:
        folder = data / name
        corpus = next((p for n in MANIFESTS if (p := folder / n).is_file()), None)
        if not folder.is_dir() or (name not in SUITES and corpus is None):
            missing.append(name)
            continue
        try:
            measured[name], left = _measure(
                name, model, corpus or folder, out / name, limit, shots, settings
            )
        except (ValueError, OSError, ModuleNotFoundError) as error:
            failed[name] = " ".join(str(error).split())
        else:
            told = ", ".join(f"{count} x {reason}" for reason, count in left.items())
            skipped |= {name: told} if told else {}
    missing.append("stsp (a command of its own: it needs a classifier)")
    if failed and not measured:
        raise ValueError("; ".join(f"{name}: {reason}" for name, reason in failed.items()))
    if not measured:
        raise ValueError(f"{data} has none of the folders {', '.join(NAMES)}")
    folder, weights = identify(model)
    title = f"{folder} ({weights})"
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    commit.json_file(
        out / "figures.json",
        {
            "model": title,
            "date": date,
            "not_measured": missing,
            "failed": failed,
            "left_out": skipped,
            "figures": {
                suite: {name: asdict(figure) for name, figure in of.items()}
                for suite, of in measured.items()
            },
        },
    )
    commit.text(out / "README.md", markdown(title, date, measured, missing, failed, skipped))
    spirit = Spirit.load(model, device=device)
    clips = _clips(spirit, data / "tiny", out / "tiny") if "tiny" in measured else []
    clips += [clip for name in measured for clip in _kept_clips(spirit, name, out / name)]
    unmeasured = [*missing, *(f"{name} ({reason})" for name, reason in failed.items())]
    commit.text(out / "index.html", page(title, measured, unmeasured, clips, skipped))
    return measured


def _measure(
    name: str,
    model: str | Path,
    data: Path,
    out: Path,
    limit: int,
    shots: int | None,
    settings: dict[str, Any],
) -> tuple[dict[str, Figure], dict[str, int]]:
    """The figures of a suite, and what is left out of them: reason to how many."""
    if name == "tiny":
        report = evaluate_tiny(model, data, out, limit=limit or 200, **settings)
        everyone = [clip for clip in read_corpus(data) if clip.text and clip.speaker != HUMAN]
        left = len(everyone) - report.sentences
        return report.figures, {"beyond the limit": left} if left else {}
    if name in SUITES:
        scored = likelihood.evaluate(name, model, data, out, limit=limit, **settings)
        return scored.figures, scored.skipped
    if name in JUDGED:
        verdict = JUDGED[name](model, data, out, limit=limit, **settings)
        return verdict.figures, verdict.skipped
    task: Any = name
    found = fewshot.evaluate(task, model, data, out, limit=limit, shots=shots, **settings)
    return found.figures, found.skipped


def markdown(
    title: str,
    date: str,
    measured: dict[str, dict[str, Figure]],
    missing: list[str],
    failed: dict[str, str],
    skipped: dict[str, str],
) -> str:
    """All figures as one table, and what is not in it."""
    lines = [
        f"# {title}, {date}",
        "",
        "| suite | figure | value (95 % interval) | items |",
        "|---|---|---|---|",
    ]
    for suite, of in measured.items():
        for name, figure in of.items():
            lines.append(f"| {suite} | {name} | {shown(name, figure)} | {figure.count} |")
    for suite, told in skipped.items():
        lines += ["", f"Left out of {suite}: {told}."]
    lines += ["", f"Not measured, for want of data: {', '.join(missing) or 'nothing'}."]
    for suite, reason in failed.items():
        lines += ["", f"Could not be measured: {suite}: {reason}"]
    return "\n".join(lines) + "\n"


def _clips(spirit: Spirit, data: Path, kept: Path) -> list[list[Line]]:
    """The first utterances: what was said, how the model hears it, and how it says it."""
    corpus = next(data / name for name in MANIFESTS if (data / name).is_file())
    chosen, _ = choose(list(read_corpus(corpus)), SHOWN)
    heard = _answers(kept / "heard.jsonl")
    clips = []
    for utterance in chosen:
        wave = read_audio(utterance.audio)
        lines = [Line("recording:", utterance.text, wave, str(spirit.hear(wave)))]
        if utterance.id in heard:
            lines.append(Line("heard by the model:", str(heard[utterance.id].get("heard", ""))))
        for title, name in (("said again:", "resynthesis"), ("read aloud:", "spoken")):
            path = kept / "recordings" / f"{name}-{utterance.id}.flac"
            if path.is_file():
                again = read_audio(path)
                lines.append(Line(title, "", again, str(spirit.hear(again))))
        clips.append(lines)
    return clips


def _kept_clips(spirit: Spirit, name: str, kept: Path) -> list[list[Line]]:
    """What was said; of a suite of recordings, the first pair."""
    titles = {
        "tts": "read aloud, as heard:",
        "resynth": "said again, as heard:",
        "generation": "gone on, as heard:",
    }
    if name in titles:
        whole = [e for e in _answers(kept / "answers.jsonl").values() if "recording" in e]
        return [_said(spirit, titles[name], e, kept / "recordings") for e in whole[:SHOWN]]
    if not (kept / "items.csv").is_file():
        return []
    with (kept / "items.csv").open(encoding="utf-8", newline="") as stream:
        row = next((row for row in csv.DictReader(stream) if not row["fault"]), None)
    if row is None or not Path(row["right"]).is_file():
        return []
    clip = []
    for side in ("right", "wrong"):
        wave = read_audio(Path(row[side]))
        told = f"log likelihood {float(row[f'{side}_sum']):.1f}, {row[f'{side}_tokens']} tokens"
        clip.append(Line(f"{name} {row['item']}, {side}:", told, wave, str(spirit.hear(wave))))
    return [clip]


def _said(spirit: Spirit, title: str, entry: dict[str, Any], recordings: Path) -> list[Line]:
    """One answer: what is heard in it, what it was to say or to follow, and its tokens."""
    asked = f" (to say: {entry['reference']})" if "reference" in entry else ""
    if "given" in entry:
        asked = f" (after: {entry['given'] or '♪'})"
    heard = entry.get("heard", entry.get("said", "")) or "…"
    wave = read_audio(recordings / entry["recording"])
    tokens = "".join(entry["answer"]) if "answer" in entry else str(spirit.hear(wave))
    return [Line(title, f"{heard}{asked}", wave, tokens)]


def _answers(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {str(entry["item"]): entry for entry in entries}
