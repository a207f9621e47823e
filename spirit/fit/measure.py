"""What trainings on a corpus share: utterances drawn, measurements kept, figures written down."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from spirit import commit
from spirit.audio import describe_audio
from spirit.config import plain
from spirit.data.corpus import Utterance, read_corpus
from spirit.engine import TrainingConfig, finished, main_process, ranks
from spirit.sound import Sound
from spirit.units import SAMPLE_RATE

PART = 100
"""Utterances whose measurements are written together: what an interruption can cost."""


def draw_utterances(corpus: Path, hours: float, seed: int) -> list[Utterance]:
    """Utterances in random order, up to so many hours; of a length that nobody wrote down the
    header of the recording is asked."""
    utterances = list(read_corpus(corpus))
    order = np.random.default_rng(seed).permutation(len(utterances))
    drawn: list[Utterance] = []
    left = hours * 3600
    for i in order:
        drawn.append(utterances[i])
        if (left := left - length(utterances[i])) <= 0:
            break
    return drawn


def length(utterance: Utterance) -> float:
    """How long a recording is in seconds, by its manifest or by its header."""
    if utterance.seconds is not None:
        return utterance.seconds
    sound = Sound.of(utterance.audio)
    start = sound.start / SAMPLE_RATE
    if sound.stop is not None:
        return sound.stop / SAMPLE_RATE - start
    return float(describe_audio(sound)["seconds"]) - start


def measure(
    utterances: Sequence[Utterance],
    folder: Path,
    key: str,
    listen: Callable[[Utterance], Float[np.ndarray, "_ values"]],
) -> list[Float[np.ndarray, "_ values"]]:
    """What `listen` says of every utterance, kept in `folder` part by part for the next time."""
    measured: list[np.ndarray] = []
    parts = range(0, len(utterances), PART)
    for start in tqdm(parts, desc=folder.name, unit=f"x{PART}", disable=not main_process()):
        some = utterances[start : start + PART]
        path = folder / f"part-{start // PART:05d}.npz"
        seal = _seal(key, some)
        if (kept := _kept(path, seal)) is None:
            kept = [listen(utterance) for utterance in some]
            with commit.file(path) as partial, partial.open("wb") as stream:
                lengths = np.array([len(rows) for rows in kept])
                np.savez(stream, rows=np.concatenate(kept), lengths=lengths, seal=np.array(seal))
        measured += kept
    return measured


def _seal(key: str, utterances: Sequence[Utterance]) -> str:
    """What measurements belong to: how they were made and which files they are of."""
    files: list[tuple[Any, ...]] = []
    for u in utterances:
        sound = Sound.of(u.audio)
        part = () if sound.whole else (sound.start, sound.stop)
        files.append((u.id, sound.size, *part))
    return hashlib.sha256(json.dumps([key, files]).encode()).hexdigest()


def _kept(path: Path, seal: str) -> list[np.ndarray] | None:
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as table:
        if str(table["seal"]) != seal:  # of another corpus or another network
            return None
        return np.split(table["rows"], np.cumsum(table["lengths"])[:-1])


def keep_labels(
    path: Path,
    told: Any,
    make: Callable[[], Sequence[Int[np.ndarray, " _"]]],
    where: torch.device,
) -> list[Int[np.ndarray, " _"]]:
    """What `make` says of the frames of every recording: made once, by the main process, and kept
    in `path` for all processes and for the next time that the same is `told`."""
    seal = hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def write() -> None:
        if not main_process() or _sealed(path, seal):
            return
        rows = make()
        table = {
            "labels": np.concatenate(rows).astype(np.int16),
            "counts": np.array([len(row) for row in rows]),
        }
        with commit.file(path) as partial:
            save_file(table, partial, metadata={"seal": seal})

    ranks.start(where)
    ranks.together(write)  # where it fails, nobody waits
    table = load_file(path)
    return np.split(table["labels"], np.cumsum(table["counts"])[:-1])


def _sealed(path: Path, seal: str) -> bool:
    """Whether a file is there and belongs to this run."""
    if not path.is_file():
        return False
    with safe_open(path, "numpy") as table:
        return bool(table.metadata().get("seal") == seal)


def read_report(out: Path, config: Any, training: TrainingConfig) -> dict[str, float] | None:
    """The figures of a run with this very config that is done."""
    path = out / "report.json"
    if not path.is_file() or not finished(out, training):
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    figures: dict[str, float] = kept["figures"]
    return figures if kept["config"] == plain(config) else None


def write_report(out: Path, config: Any, figures: dict[str, float]) -> None:
    """Write report.json: the figures and the config that they belong to."""
    commit.json_file(out / "report.json", {"figures": figures, "config": plain(config)})
