"""STSP: is an answer in the mood of its prompt? (Nguyen et al. 2025, TACL, section 5.)

The data as downloaded: `manifest/*/*.jsonl` with `id, wav_path, asr, emotion, sentiment`, and
`manifest/few_shot/{s2s,s2t,t2s,t2t}.jsonl` with `prompt, generation, sentiment`. Unlike the code of
the release, a prompt with shots holds the test item too.
"""

import json
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spirit import commit
from spirit.audio import read_audio, write_audio
from spirit.codec import Segment
from spirit.engine import ranks
from spirit.eval.answers import Subject
from spirit.eval.compare import save_values
from spirit.eval.figures import Figure, mean
from spirit.eval.judges import Judge, Wave
from spirit.eval.ledger import Result, answered, collect, mark
from spirit.eval.stsp_data import Sample, Shot, draw_shots, read_manifest
from spirit.eval.tiny import identify
from spirit.pipeline import Spirit
from spirit.units import Units

LONGEST = {"s": 300, "t": 50}
"""Tokens of an answer in speech and in text."""
SAMPLING: dict[str, Any] = {"temperature": 0.8, "top_p": 0.95}
ROUNDS = 1
"""Raised when the same model would be asked in another way: older answers are then not taken."""
TRIES = 3
"""Of an answer that holds nothing."""


@dataclass(frozen=True)
class Verdict:
    """What came of one direction."""

    direction: str
    shots: int
    seed: int
    model: str
    manifest: str
    judge: str
    accuracy: Figure
    by_sentiment: dict[str, Figure]
    skipped: dict[str, int]
    """Why what is not in them was left out: reason to how many."""


def evaluate(
    model: str | Path,
    data: Path,
    manifest: Path,
    out: Path,
    judge: Judge,
    *,
    direction: str,
    shots: int = 0,
    seed: int = 0,
    judge_name: str = "",
    device: str = "auto",
    jobs: int = 1,
) -> Verdict:
    """Answer every sample of a manifest, judge the answers, and write `predictions.jsonl`,
    `answers.jsonl` (prompt, seed, settings and raw answer) and `figures.json` into `out`.

    A sample that cannot be read or answered is left out, and counted. `judge_name` stands for the
    judge: answers that another one judged are not taken again.

    Raises ValueError for data of another layout.
    """
    examples = draw_shots(data, direction, shots, seed)
    samples = read_manifest(manifest, data, sound=direction[0] == "s")
    folder, weights = identify(model)
    where = ranks.device(device).type
    read_files: dict[str, str] = {}
    shown = mark([part for shot in examples for part in (shot.given, shot.answer)], read_files)
    origin = f"{weights}-{where}-{direction}-{shown}-{seed}-{judge_name}-{ROUNDS}"
    subject = Subject(folder.resolve(), device, out / "recordings")
    subject.recordings.mkdir(parents=True, exist_ok=True)
    work = partial(
        answer, subject=subject, examples=examples, direction=direction, seed=seed, judge=judge
    )
    items = {sample.id: sample for sample in samples}
    # Two manifests may count their samples alike.
    marks = {s.id: mark((s.wave if direction[0] == "s" else s.text,), read_files) for s in samples}
    kept, title = out / "answers.jsonl", f"stsp {direction}"
    found, skipped = answered(
        collect(kept, items, work, origin=origin, jobs=jobs, title=title, marks=marks), kept
    )
    lines = [
        json.dumps({"id": name, "pred": result["pred"], "generation": result["generation"]})
        for name, result in found.items()
    ]
    commit.text(out / "predictions.jsonl", "".join(f"{line}\n" for line in lines))
    right = {name: result["pred"] == items[name].sentiment for name, result in found.items()}
    by_sentiment = _by({name: items[name].sentiment for name in found}, right)
    verdict = Verdict(
        direction,
        shots,
        seed,
        str(folder),
        str(manifest),
        judge_name,
        mean(list(right.values())),
        by_sentiment,
        skipped,
    )
    commit.json_file(out / "figures.json", asdict(verdict))
    values = {name: (float(value), 1.0) for name, value in right.items()}
    suite = f"stsp {manifest.stem} {direction} {shots} shots"
    save_values(out, suite, {"accuracy": values}, {"accuracy": judge_name})
    return verdict


def answer(
    sample: Sample,
    *,
    subject: Subject,
    examples: Sequence[Shot],
    direction: str,
    seed: int,
    judge: Judge,
) -> Result:
    """How the model goes on, and the mood of that ("" of nothing); {"fault": a line} where it
    cannot be asked."""
    spirit = subject.load()
    if direction[2] == "s":
        spirit.check_voice()
    try:
        prompt = lay_out(spirit, sample, examples, direction)
        result, said = _answer(spirit, sample, prompt, subject, direction, seed)
    except ValueError as error:
        return {"fault": " ".join(str(error).split())}
    # What is wrong with the judge is no fault of the sample.
    return {**result, "pred": judge(said) if len(said) else ""}


def _answer(
    spirit: Spirit,
    sample: Sample,
    prompt: list[Segment],
    subject: Subject,
    direction: str,
    seed: int,
) -> tuple[Result, str | Wave]:
    """The answer, and what of it is judged: its text, or its sound."""
    spoken = direction[2] == "s"
    segments: list[Segment] = []
    for turn in range(TRIES):
        drawn = zlib.crc32(f"{seed} {turn} {sample.id}".encode())
        segments = list(
            spirit.generate(
                prompt,
                want="speech" if spoken else "text",
                max_tokens=LONGEST[direction[2]],
                seed=drawn,
                **SAMPLING,
            )
        )
        if segments:
            break
    result: Result = {"prompt": describe(prompt), "seed": drawn, **SAMPLING}
    if not spoken:
        text = " ".join(s for s in segments if isinstance(s, str)).strip()
        return {**result, "generation": text}, text
    waves = [spirit.speak(s) for s in segments if isinstance(s, Units)]
    wave = np.concatenate([np.zeros(1, np.float32), *waves])
    path = subject.recordings / f"{direction}-{zlib.crc32(sample.id.encode()):08x}.flac"
    write_audio(path, wave)
    return {**result, "generation": path.name}, wave[1:]


def lay_out(
    spirit: Spirit, sample: Sample, examples: Sequence[Shot], direction: str
) -> list[Segment]:
    """The shots, then the sample; texts on lines of their own."""
    prompt: list[Segment] = []
    for shot in examples:
        for side, part in enumerate((shot.given, shot.answer)):
            prompt.append(_segment(spirit, part, second=side == 1))
        if isinstance(prompt[-1], str):
            prompt[-1] += "\n"
    if direction[0] == "t":
        if not sample.text:
            raise ValueError(f"sample {sample.id} has no text (asr); ask for speech prompts")
        prompt.append(sample.text)
    elif sample.wave is None:
        raise ValueError(f"sample {sample.id} has no wav_path; ask for text prompts")
    else:
        prompt.append(spirit.hear(read_audio(sample.wave)))
    return prompt


def describe(prompt: Sequence[Segment]) -> list[str]:
    """A prompt for people: texts as they are, units in their string form."""
    return [segment if isinstance(segment, str) else str(segment) for segment in prompt]


def _segment(spirit: Spirit, part: Path | str, *, second: bool) -> Segment:
    if isinstance(part, str):
        return part
    wave = read_audio(part)
    middle = len(wave) // 2
    return spirit.hear(wave[middle:] if second else wave[:middle])


def _by(classes: Mapping[str, str], right: Mapping[str, bool]) -> dict[str, Figure]:
    found: dict[str, list[bool]] = defaultdict(list)
    for name, group in classes.items():
        found[group].append(right[name])
    return {group: mean(values) for group, values in sorted(found.items())}
