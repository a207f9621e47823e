"""Corpora of "phones" that are noise around four frequencies: quick to make, easy to tell apart."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from spirit.audio import write_audio

PHONES = {"aa": 700.0, "iy": 2_300.0, "uw": 350.0, "s": 6_000.0}


def make_noises(
    folder: Path,
    recordings: int,
    phones: int,
    *,
    gain: Callable[[int], float] = lambda number: 0.1,
    about: Callable[[int], dict[str, Any]] = lambda number: {},
) -> Path:
    """Write recordings of so many phones each and a manifest that knows them, which is returned.

    `gain` is how loud a recording is, and `about` what else the manifest says of it, by number.
    """
    rng = np.random.default_rng(0)
    lines = []
    for number in range(recordings):
        spoken, wave, start = [], [], 0
        for _ in range(phones):
            name = str(rng.choice(list(PHONES)))
            samples = int(rng.integers(1_600, 4_000))
            turn = np.cumsum(rng.normal(PHONES[name], 200.0, samples)) * 2 * np.pi / 16_000
            wave.append(np.sin(turn) * gain(number))
            spoken.append([name, start, start + samples])
            start += samples
        write_audio(folder / f"{number}.wav", np.concatenate(wave).astype(np.float32))
        lines.append(json.dumps({"audio": f"{number}.wav", "phones": spoken, **about(number)}))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "train.jsonl"
