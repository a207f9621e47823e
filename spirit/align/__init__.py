"""Word times for unit shards: each part aligned alone, and all of them put in place at once.

An utterance keeps words only if they spell its text and none of them is below the gate; so what
reads the shards never cuts at a place that is in doubt.
"""

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from spirit.align import stage
from spirit.align.aligner import Aligner, Unaligned
from spirit.align.choice import NAMES, Choice
from spirit.align.parts import Job, PartAligner, Progress, summary
from spirit.data.children import run_jobs
from spirit.data.contents import read_contents
from spirit.data.parts import read_note
from spirit.data.shards import read_manifest, verify
from spirit.sound import is_url

__all__ = ["NAMES", "Aligner", "Choice", "Unaligned", "align"]


def align(
    folder: Path,
    choice: Choice,
    *,
    min_score: float | None = None,
    corpus: Path | None = None,
    workers: int = 1,
) -> dict[str, Any]:
    """Put word times into the unit shards in `folder`, in `workers` processes; returns a report.

    Words take the place of those that were there. An utterance with a word below `min_score` (by
    default the aligner's own gate), or that cannot be aligned, has none, and is listed in
    `unaligned.jsonl` with a reason. `corpus` says where the recordings are now, if they were
    moved.

    The shards stay as they are until every part is aligned. The same call goes on after a stop,
    to the same bytes; parts that were aligned by the same settings are left alone. The report
    counts `aligned`, `gated`, `failed` by reason, `without_text`, `words`, `hours` (with words)
    and `mean_score` of the whole folder, and says of this run how many `seconds` it took and
    `x_real_time`. Raises `ValueError` or `OSError` with one line, and then nothing has changed.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers; give one or more")
    if min_score is not None and not 0 <= min_score <= 1:
        raise ValueError(f"a score lies between 0 and 1; --min-score {min_score:g} does not")
    if not folder.is_dir():
        read_manifest(folder)
    began, threads = time.monotonic(), torch.get_num_threads()
    try:
        with stage.alone(folder):
            stage.finish(folder)
            report, seconds = _align(folder, choice, min_score, corpus, workers)
    finally:
        torch.set_num_threads(threads)
    wall = time.monotonic() - began
    return {**report, "seconds": wall, "x_real_time": seconds / wall}


def _align(
    folder: Path, choice: Choice, min_score: float | None, corpus: Path | None, workers: int
) -> tuple[dict[str, Any], float]:
    """The report, and the seconds of audio that were aligned in this run."""
    manifest = verify(folder)
    root = None if choice.aligner == "given" else _root(folder, manifest, corpus)
    here = PartAligner.load(choice, root, min_score)
    settings = {**here.aligner.settings, "min_score": here.min_score}
    notes = _notes(folder, manifest)
    wanted = [path for path, note in notes.items() if _settings(note) != settings]
    seconds = 0.0
    if not wanted:
        stage.discard(folder)
    else:
        plan = {"settings": settings, "parts": {p["file"]: p["sha256"] for p in manifest["parts"]}}
        staged = stage.resume(folder, plan)
        jobs = [Job(path, settings) for path in wanted if path.name not in staged]
        if workers > 1 and jobs:
            made = run_jobs(partial(PartAligner.load, choice, root, min_score), jobs, workers)
        else:
            made = (progress for job in jobs for progress in here(job))
        total = sum(notes[path]["rows"] for path in wanted)
        left = sum(notes[job.path]["rows"] for job in jobs)
        seconds = _write(folder, made, staged, total, left)
        notes |= {path: read_note(staged[path.name]) for path in wanted}
        _publish(folder, manifest, list(notes.values()), staged)
    return _report(folder, list(notes.values())), seconds


def _root(folder: Path, manifest: Mapping[str, Any], corpus: Path | None) -> Path | None:
    """The folder of the recordings; None where the shards do not say and paths are as written."""
    noted = manifest.get("root") or manifest.get("corpus")
    if corpus is None and (noted is None or is_url(str(noted))):
        return None
    path = corpus or Path(str(noted))
    if not path.exists():
        raise ValueError(
            f"the recordings of {folder} were in {path}, which is not here; "
            "say where they are, --corpus PATH"
        )
    return path if path.is_dir() else path.parent


def _notes(folder: Path, manifest: Mapping[str, Any]) -> dict[Path, dict[str, Any]]:
    notes = {folder / part["file"]: read_note(folder / part["file"]) for part in manifest["parts"]}
    for path, note in notes.items():
        if note["vocabulary"] != manifest["fingerprint"]:
            raise ValueError(
                f"{path} has units for vocabulary {note['vocabulary']}, but the manifest says "
                f"{manifest['fingerprint']}; run `spirit tokenize` again into a new folder"
            )
    return notes


def _settings(note: Mapping[str, Any]) -> Any:
    """The settings by which a part was aligned; None if it was not."""
    return (note.get("alignment") or {}).get("settings")


def _write(
    folder: Path,
    made: Generator[Progress, None, None],
    staged: dict[str, Path],
    total: int,
    left: int,
) -> float:
    """Write parts to the stage as they come, under a progress bar; returns the seconds of audio."""
    seconds, unaligned, began = 0.0, 0, time.monotonic()
    bar = tqdm(total=total, initial=total - left, unit=" utterances", smoothing=0)
    with closing(made), bar:
        for progress in made:
            if progress.content is not None:
                staged[progress.path.name] = stage.keep(folder, progress.path, progress.content)
            seconds += progress.seconds
            unaligned += progress.unaligned
            speed = seconds / (time.monotonic() - began)
            bar.set_postfix_str(f"{speed:.0f} h/h, {unaligned} not aligned", refresh=False)
            bar.update(progress.utterances)
    return seconds


def _publish(
    folder: Path,
    manifest: Mapping[str, Any],
    notes: Sequence[Mapping[str, Any]],
    staged: Mapping[str, Path],
) -> None:
    """Put the staged parts in place with a manifest that vouches for them.

    Raises `ValueError` where no utterance has words: that is a wrong file or folder, and the words
    that the shards had are kept.
    """
    outcomes = [note["alignment"] for note in notes]
    unaligned = [entry for outcome in outcomes for entry in outcome["unaligned"]]
    total = summary(outcomes)
    if not total["aligned"]:
        stage.discard(folder)
        if not unaligned:
            raise ValueError(f"no utterance in {folder} has a text; there is nothing to align")
        first = unaligned[0]
        raise ValueError(
            f"none of {len(unaligned)} utterances could be aligned, the first ({first['id']}) "
            f"because: {first['reason']}, {first['detail']}; {folder} is as it was"
        )
    # The hash of a staged part stands in its name.
    hashes = {name: path.name.split(".")[1] for name, path in staged.items()}
    parts = [{**p, "sha256": hashes.get(p["file"], p["sha256"])} for p in manifest["parts"]]
    told = {
        "parts": parts,
        "contents": read_contents(staged.get(p["file"], folder / p["file"]) for p in parts),
        "alignment": {"settings": outcomes[0]["settings"], **total},
    }
    stage.complete(folder, {**manifest, **told}, unaligned)


def _report(folder: Path, notes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What came of a folder's alignment, by the notes of its parts."""
    utterances = sum(note["rows"] for note in notes)
    total = summary([note["alignment"] for note in notes])
    return {"out": str(folder), "utterances": utterances, **total, "parts": len(notes)}
