"""A part of unit shards to the same part with word times, or with a reason for each utterance that
has none."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import torch

from spirit.align.aligner import Aligner, Unaligned, Wave, check, sounds, spell
from spirit.align.choice import Choice
from spirit.audio import read_audio
from spirit.data.parts import Note, Part, Row, part_bytes, read_note
from spirit.units import SAMPLE_RATE, Kind, Word

THREADS = 1
"""Of torch in each process, so that sums and with them times stay the same."""


@dataclass(frozen=True)
class Job:
    """A part that is to be aligned, with the settings that go into its note."""

    path: Path
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Progress:
    """What has been done since the last report; with the last one of a part comes its content."""

    path: Path
    utterances: int = 0
    unaligned: int = 0
    seconds: float = 0.0
    content: bytes | None = None


@dataclass(frozen=True)
class Refusal:
    """An utterance that keeps no words, and why."""

    id: str
    audio: str
    reason: str
    detail: str


class PartAligner:
    """Aligns parts in one process. Recordings lie in `root` unless their paths are absolute."""

    def __init__(self, aligner: Aligner, root: Path | None, min_score: float | None) -> None:
        self.aligner, self.root = aligner, root
        self.min_score = aligner.gate if min_score is None else min_score

    @classmethod
    def load(cls, choice: Choice, root: Path | None, min_score: float | None) -> "PartAligner":
        """For a process of its own: loads the aligner and sets the threads."""
        torch.set_num_threads(THREADS)
        return cls(choice.load(), root, min_score)

    def __call__(self, job: Job) -> Iterator[Progress]:
        """Align a part's utterances one by one, and report on the way."""
        about = read_note(job.path)
        hops = {Kind[name.upper()]: Fraction(hop) for name, hop in about["hops"].items()}
        part = Part(job.path, hops)
        rows: list[Row] = []
        refusals: list[Refusal] = []
        for index in range(len(part)):
            row, found = part.row(index), self._align(part.row(index))
            refused = isinstance(found, Refusal)
            if isinstance(found, Refusal):
                refusals.append(found)
                found = ()
            rows.append(replace(row, words=found))
            yield Progress(job.path, 1, refused, row.seconds)
        outcome = _outcome(rows, refusals)
        note = replace(Note.of(about), alignment={"settings": dict(job.settings), **outcome})
        yield Progress(job.path, content=part_bytes(rows, note))

    def _align(self, row: Row) -> tuple[Word, ...] | Refusal:
        if not row.text.split():
            return ()
        try:
            words = [word for word in row.text.split() if sounds(word)]
            if not words:
                raise Unaligned("unknown word", f"nothing in {row.text!r} has a sound")
            found = self.aligner(row.id, words, partial(self._hear, row))
            aligned = check(spell(row.text, found), round(row.seconds * SAMPLE_RATE))
            worst = min(aligned, key=lambda word: word.score)
            if worst.score < self.min_score:
                detail = f"{worst.text!r} has {worst.score:.3f}, below {self.min_score:g}"
                raise Unaligned("score", detail)
        except Unaligned as error:
            return Refusal(row.id, row.audio, error.reason, error.detail)
        return aligned

    def _hear(self, row: Row) -> Wave:
        try:
            wave = read_audio(row.sound(self.root or Path()))
        except ValueError as error:  # an OSError is the disk's or the network's: run again
            raise Unaligned("recording", str(error)) from None
        if len(wave) != round(row.seconds * SAMPLE_RATE):
            seconds = len(wave) / SAMPLE_RATE
            detail = f"{row.audio} has {seconds:.2f} s but {row.seconds:.2f} s were tokenized"
            raise Unaligned("recording", detail)
        return wave


def _outcome(rows: Sequence[Row], refusals: Sequence[Refusal]) -> dict[str, Any]:
    """What a part's note says of its alignment; the same for the same rows."""
    aligned = [row for row in rows if row.words]
    return {
        "aligned": len(aligned),
        "without_text": sum(not row.text.split() for row in rows),
        "words": sum(len(row.words) for row in aligned),
        "score": sum(word.score for row in aligned for word in row.words),
        "seconds": sum(row.seconds for row in aligned),
        "unaligned": [asdict(refusal) for refusal in refusals],
    }


def summary(outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The outcomes of parts as one: counts, hours with words, and their mean score."""
    reasons = Counter(entry["reason"] for outcome in outcomes for entry in outcome["unaligned"])
    total = {key: sum(o[key] for o in outcomes) for key in ("aligned", "without_text", "words")}
    score = sum(outcome["score"] for outcome in outcomes)
    return {
        **total,
        "gated": reasons.pop("score", 0),
        "failed": dict(sorted(reasons.items())),
        "hours": round(sum(outcome["seconds"] for outcome in outcomes) / 3600, 6),
        "mean_score": round(score / total["words"], 6) if total["words"] else None,
    }
