"""Few-shot prompts in the shapes of Spirit LM (Nguyen et al. 2025, TACL, appendix B), and what of
an answer counts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from spirit.audio import read_audio
from spirit.codec import Segment
from spirit.data.corpus import Utterance
from spirit.pipeline import Spirit
from spirit.shots import MARKS, known_ending, transcript
from spirit.units import Kind, Units

__all__ = ["TOLD", "Name", "lay_out", "stopped", "transcript", "until"]

Name = Literal["asr", "tts", "intent"]
TOLD = "A:"


def lay_out(
    spirit: Spirit,
    task: Name,
    item: Utterance,
    shots: Sequence[Utterance],
    *,
    marked: bool,
    stop: Units | None = None,
) -> list[Segment]:
    """The examples, then the item, up to where its answer begins; `stop` ends spoken examples."""
    prompt: list[Segment] = []
    begin, end = MARKS

    def heard(utterance: Utterance) -> Units:
        return spirit.hear(read_audio(utterance.audio))

    for shot in shots:
        if task == "asr":
            prompt += [heard(shot), f"{begin} {shot.text} {end}"]
        elif task == "intent":
            prompt += [heard(shot), f" {TOLD}{shot.style}"]
        else:
            prompt += [f"{shot.text} 'stop'", heard(shot) + (stop or Units.build([]))]
    if task == "tts":
        return [*prompt, f"{item.text} 'stop'" if marked else item.text]
    if not marked:
        return [heard(item)]
    return [*prompt, heard(item), *([f" {TOLD}"] if task == "intent" else [])]


def stopped(spirit: Spirit, stop: Path | None) -> Units:
    """The spoken word "stop"; nothing where nobody knows it in the units of this model."""
    if stop is not None:
        return spirit.hear(read_audio(stop))
    return known_ending(spirit.tokenizer.name)


def until(units: Units, ending: Units) -> Units:
    """The units before the word "stop", by HuBERT."""
    places, wanted = np.flatnonzero(units.kind == Kind.HUBERT), ending.of(Kind.HUBERT)
    heard, size = units.of(Kind.HUBERT), len(wanted)
    for turn in range(len(heard) - size + 1 if size else 0):
        if np.array_equal(heard[turn : turn + size], wanted):
            return units[: places[turn - 1] + 1 if turn else 0]
    return units
