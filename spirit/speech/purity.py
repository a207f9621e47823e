"""How much units know about phones, where a corpus says which phone is spoken when."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from spirit.speech.robustness import without_repeats
from spirit.units import Word

UNKNOWN = -1


def phone_labels(
    phones: Sequence[Word], names: dict[str, int], frames: int, hop: int, *, states: int = 1
) -> Int[np.ndarray, " frames"]:
    """The phone at the middle of each frame, by its number in `names`, which grows; -1: unknown.

    With more `states`, which part of a phone: its beginning, middle or end where there are three.
    """
    labels = np.full(frames, UNKNOWN, dtype=np.int32)
    middles = np.arange(frames) * hop + hop // 2
    for phone in phones:
        edges = np.linspace(phone.start, phone.stop, states + 1)
        places = np.searchsorted(middles, edges)
        for state, (first, last) in enumerate(pairwise(places)):
            name = f"{phone.text}.{state}" if states > 1 else phone.text
            labels[first:last] = names.setdefault(name, len(names))
    return labels


def joint_counts(
    units: Int[np.ndarray, " frames"], labels: Int[np.ndarray, " frames"]
) -> Float[np.ndarray, "units labels"]:
    """How often each unit meets each label; frames with an unknown label are left out."""
    known = labels >= 0
    table = np.zeros((units.max(initial=0) + 1, labels.max(initial=0) + 1))
    np.add.at(table, (units[known], labels[known]), 1)
    return table


def information(table: Float[np.ndarray, "units labels"]) -> float:
    """I(label; unit) / H(label): how much of the uncertainty about the label units take, 0 to 1.

    With phones as labels this is the PNMI of HuBERT (Hsu et al. 2021, section IV-E).
    """
    joint = table / max(table.sum(), 1)
    by_unit, by_label = joint.sum(1), joint.sum(0)
    uncertain = -float((by_label * _log(by_label)).sum())
    mutual = float((joint * (_log(joint) - _log(by_unit)[:, None] - _log(by_label)[None])).sum())
    return mutual / uncertain if uncertain > 0 else 0.0


def purity(table: Float[np.ndarray, "units labels"]) -> float:
    """How often the commonest label of a unit is right, 0 to 1."""
    return float(table.max(1).sum() / max(table.sum(), 1))


def bitrate(units: Sequence[Int[np.ndarray, " _"]], seconds: float) -> float:
    """Bits per second of units without repetitions, each drawn by its frequency (ZeroSpeech)."""
    kept = np.concatenate([without_repeats(row) for row in units])
    share = np.bincount(kept) / len(kept)
    entropy = -float((share * _log(share)).sum()) / np.log(2)
    return float(entropy * len(kept) / seconds)


def _log(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    logs: np.ndarray = np.log(np.where(values > 0, values, 1.0))
    return logs
