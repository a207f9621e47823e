"""Styles that nobody named: clusters of seconds, each beside what is usual for who speaks in it."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int

from spirit.speech.purity import information, joint_counts
from spirit.speech.quantizer import KMeans
from spirit.speech.style import F0_STATISTICS, StyleTokenizer

Rows = Float[np.ndarray, "_ _"]


def beside_usual(
    seconds: Sequence[Rows], speakers: Sequence[str], channels: int, context: int
) -> list[Rows]:
    """What seconds are clustered by, from their descriptions (`pool_features` of so many channels,
    and `pool_f0`).

    What is said changes from second to second, how it is said stays: each number is the mean over
    `context` seconds around. It is counted from its speaker's mean in its speaker's spread, so that
    voices make no clusters of their own; recordings without a speaker count as one speaker's. The
    mean, spread and change of features and the pitch weigh the same, however many numbers they are.
    """
    sizes = [channels, channels, channels, F0_STATISTICS - 1]  # the last: how long a second is
    weight = np.repeat(1 / np.sqrt(sizes), sizes).astype(np.float32)
    smooth = [_smooth(rows[:, : len(weight)], context) for rows in seconds]
    usual = {}
    for name in sorted(set(speakers)):
        spoken = [rows for rows, who in zip(smooth, speakers, strict=True) if who == name]
        rows = np.concatenate(spoken)
        usual[name] = rows.mean(0), np.maximum(rows.std(0), 1e-3)
    return [
        ((rows - usual[who][0]) / usual[who][1] * weight).astype(np.float32)
        for rows, who in zip(smooth, speakers, strict=True)
    ]


def _smooth(rows: Rows, context: int) -> Rows:
    sums = np.concatenate([np.zeros((1, rows.shape[1])), np.cumsum(rows, axis=0, dtype=np.float64)])
    here = np.arange(len(rows))
    first, last = np.maximum(here - context, 0), np.minimum(here + context + 1, len(rows))
    mean: Rows = (sums[last] - sums[first]) / (last - first)[:, None]
    return mean


def cluster(
    rows: Sequence[Rows], learn: int, styles: int, seed: int
) -> list[Int[np.ndarray, " _"]]:
    """The cluster of every second, by k-means on the first `learn` recordings. Raises ValueError if
    these have fewer seconds than there are to be styles."""
    known = np.concatenate(rows[:learn])
    if len(known) < styles:
        raise ValueError(f"{styles} styles cannot be found in {len(known)} s of speech; give more")
    kmeans = KMeans.fit(known, styles, seed=seed)
    return [kmeans.units(torch.from_numpy(some)) for some in rows]


@torch.inference_mode()
def cluster_figures(
    tokenizer: StyleTokenizer,
    seconds: Sequence[Rows],
    labels: Sequence[Int[np.ndarray, " _"]],
    speakers: Sequence[str],
) -> dict[str, float]:
    """How a classifier that knows no speakers finds the clusters of described recordings again.

    `accuracy_second`: share of seconds in their cluster; `chance`: share of the largest; `used`:
    share of the styles that it says; `speaker`: how much they tell about the speaker (0 to 1).
    """
    device = tokenizer.network.mean.device
    said = np.concatenate(
        [tokenizer.network(torch.from_numpy(rows)[None].to(device))[0].argmax(-1).cpu().numpy()
         for rows in seconds]
    )  # fmt: skip
    wanted = np.concatenate(labels)
    voices = {name: number for number, name in enumerate(sorted(set(speakers)))}
    spoken = [np.full(len(r), voices[who]) for r, who in zip(seconds, speakers, strict=True)]
    table = joint_counts(said.astype(np.int32), np.concatenate(spoken).astype(np.int32))
    return {
        "recordings": len(seconds),
        "styles": len(tokenizer.names),
        "accuracy_second": float((said == wanted).mean()),
        "chance": float(np.bincount(wanted).max() / len(wanted)),
        "used": len(np.unique(said)) / len(tokenizer.names),
        "speaker": information(table),
    }
