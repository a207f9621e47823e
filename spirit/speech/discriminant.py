"""Directions of features in which phones differ: clusters along them tell more about phones."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from spirit.speech.purity import phone_labels
from spirit.units import Word

STATES = 3
"""Beginning, middle and end of a phone are told apart, as in hidden Markov models of phones: units
that tell only phones say less about when and how each is spoken."""
SHRINK = 1e-3
"""Share of the mean variance within classes that is added to all: no direction counts for ever."""


def phone_states(
    recordings: Sequence[Sequence[Word]], frames: Sequence[int], hop: int
) -> Int[np.ndarray, " frames"]:
    """The phone and its state at the middle of each frame of all recordings; -1: unknown."""
    names: dict[str, int] = {}
    labels = [
        phone_labels(phones, names, count, hop, states=STATES)
        for phones, count in zip(recordings, frames, strict=True)
    ]
    return np.concatenate(labels)


def discriminant(
    features: Float[np.ndarray, "frames channels"], classes: Int[np.ndarray, " frames"]
) -> Float[np.ndarray, "channels directions"]:
    """The linear discriminants of classes (-1: unknown, left out), at most one fewer than classes.

    Linear discriminant analysis for speech (Haeb-Umbach and Ney 1992): features times the result
    have unit covariance within a class. Each direction is then scaled by the root of the share of
    its variance that is between classes, so that those that tell little also count little.
    """
    _, labels = np.unique(classes[classes >= 0], return_inverse=True)
    known = features[classes >= 0].astype(np.float64)
    counts = np.bincount(labels)
    if len(counts) < 2:
        raise ValueError(
            "the corpus does not say which phones are spoken when; give it `phones`, "
            "or set phones = false"
        )
    means = np.zeros((len(counts), known.shape[1]))
    np.add.at(means, labels, known)
    means /= counts[:, None]
    rest = known - means[labels]
    within = rest.T @ rest / len(known)
    within += SHRINK * np.trace(within) / len(within) * np.eye(len(within))
    apart = (means - known.mean(0)) * np.sqrt(counts / len(known))[:, None]
    values, vectors = np.linalg.eigh(within)
    whiten = vectors / np.sqrt(values)
    between, turn = np.linalg.eigh(whiten.T @ (apart.T @ apart) @ whiten)
    kept = min(len(counts) - 1, len(between))
    between, turn = between[::-1][:kept].clip(min=0), turn[:, ::-1][:, :kept]
    directions: np.ndarray = whiten @ turn * np.sqrt(between / (between + 1))
    return directions.astype(np.float32)
