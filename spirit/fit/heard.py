"""Recordings with what a corpus knows of their frames, and what units tell about them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from spirit.data.corpus import Utterance, read_corpus
from spirit.speech.discriminant import phone_states
from spirit.speech.distort import WAYS
from spirit.speech.listen import Listener, Wave, from_16_bit, load_waves, to_16_bit
from spirit.speech.purity import bitrate, information, joint_counts, phone_labels, purity
from spirit.speech.quantizer import CTCLinear, KMeans
from spirit.speech.robustness import unit_edit_distance
from spirit.units import SAMPLE_RATE

DISTORTED_SECONDS = 180.0
"""How much speech is made worse in each way to see how far its units change."""

Quantizer = KMeans | CTCLinear


@dataclass(frozen=True)
class Heard:
    """Recordings, and what the corpus knows of their frames (-1: nothing)."""

    waves: Sequence[Wave]
    phones: Int[np.ndarray, " frames"]
    states: Int[np.ndarray, " frames"]
    """Phones and which part of them."""
    speakers: Int[np.ndarray, " frames"]
    seconds: float

    @classmethod
    def read(cls, utterances: Sequence[Utterance], seconds: float, hop: int) -> "Heard":
        """Read recordings up to so many seconds, the last one whole."""
        waves: list[Wave] = []
        left = seconds * SAMPLE_RATE
        for utterance in utterances:
            if left <= 0:
                break
            waves += load_waves([utterance])
            left -= len(waves[-1])
        return cls.build(utterances[: len(waves)], waves, hop)

    @classmethod
    def build(cls, utterances: Sequence[Utterance], waves: Sequence[Wave], hop: int) -> "Heard":
        """Label the middle of every frame."""
        names: dict[str, int] = {}
        voices: dict[str, int] = {}
        frames = [max(1, len(wave) // hop) for wave in waves]
        phones, speakers = [], []
        for utterance, count in zip(utterances, frames, strict=True):
            phones.append(phone_labels(utterance.phones, names, count, hop))
            voice = voices.setdefault(utterance.speaker, len(voices))
            speakers.append(np.full(count, voice, np.int32))
        states = phone_states([utterance.phones for utterance in utterances], frames, hop)
        seconds = sum(map(len, waves)) / SAMPLE_RATE
        return cls(waves, np.concatenate(phones), states, np.concatenate(speakers), seconds)

    def first(self, count: int, hop: int) -> "Heard":
        """Its first recordings."""
        waves = self.waves[:count]
        frames = sum(max(1, len(wave) // hop) for wave in waves)
        seconds = sum(map(len, waves)) / SAMPLE_RATE
        labels = (self.phones[:frames], self.states[:frames], self.speakers[:frames])
        return Heard(waves, *labels, seconds)

    @property
    def knows_phones(self) -> bool:
        """Whether the corpus says which phone is spoken when."""
        return bool((self.phones >= 0).any())


def divide(corpus: Path, seed: int) -> tuple[list[Utterance], list[Utterance]]:
    """A corpus in random order: what to learn from, and a fifth to measure on."""
    utterances = list(read_corpus(corpus))
    order = np.random.default_rng(seed).permutation(len(utterances))
    drawn = [utterances[i] for i in order]
    few = max(1, len(drawn) // 5)
    return drawn[few:] or drawn, drawn[:few]


def unit_figures(listener: Listener, quantizer: Quantizer, control: Heard) -> dict[str, float]:
    """`used`, the share of the units that occur; `bitrate` without repetitions; `speaker`, how much
    they tell about the speaker (0 to 1); `pnmi` and `phone_purity` where phones are known."""
    rows = listener(control.waves, quantizer.units)
    units = np.concatenate(rows)
    figures = {
        "used": len(np.unique(units)) / len(quantizer),
        "bitrate": bitrate(rows, control.seconds),
        "speaker": information(joint_counts(units, control.speakers)),
    }
    if control.knows_phones:
        table = joint_counts(units, control.phones)
        figures |= {"pnmi": information(table), "phone_purity": purity(table)}
    return figures


def edit_distances(
    listener: Listener, quantizers: Sequence[Quantizer], control: Heard, ways: Collection[str]
) -> list[dict[str, float]]:
    """For each quantizer `ued_WAY`: the unit edit distance in % where recordings are made worse in
    that way, from the first minutes of `control`; every call makes them worse alike."""
    ends = np.cumsum([len(wave) for wave in control.waves]) / SAMPLE_RATE
    waves = control.waves[: 1 + int(np.searchsorted(ends, DISTORTED_SECONDS))]

    def units(rows: Float[Tensor, "frames channels"]) -> Int[np.ndarray, "frames quantizers"]:
        return np.stack([quantizer.units(rows) for quantizer in quantizers], axis=1)

    clean = listener(waves, units)
    distances: list[dict[str, float]] = [{} for _ in quantizers]
    for place, (name, way) in enumerate(WAYS.items()):
        if name not in ways:
            continue
        worse = []
        for number, wave in enumerate(waves):
            rng = np.random.default_rng((number, place))
            worse.append(to_16_bit(way(from_16_bit(wave), rng)))
        heard = listener(worse, units)
        for index, figures in enumerate(distances):
            figures[f"ued_{name}"] = unit_edit_distance(
                [row[:, index] for row in clean], [row[:, index] for row in heard]
            )
    return distances
