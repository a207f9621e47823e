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
UNLABELED = (
    "the corpus does not say which phones are spoken when; give it `phones`, or leave the recipe's "
    "`phones` and `supervised` out"
)


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
        raise ValueError(UNLABELED)
    means = np.zeros((len(counts), known.shape[1]))
    np.add.at(means, labels, known)
    means /= counts[:, None]
    rest = known - means[labels]
    return _directions(rest.T @ rest / len(known), means, known.mean(0), counts)


class Scatter:
    """What the discriminants of a stream of features depend on, gathered block by block.

    It holds a mean for each class and one covariance, however many frames there are.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(0, np.int64)

    def add(
        self, features: Float[np.ndarray, "frames channels"], classes: Int[np.ndarray, " frames"]
    ) -> None:
        """Take in frames and their classes (-1: unknown, left out); later blocks may have more."""
        known = features[classes >= 0].astype(np.float64)
        labels = classes[classes >= 0]
        if not len(known):
            return
        if not len(self._counts):
            # Sums around a point among the frames lose no digits to a mean far from zero.
            self._origin = known.mean(0)
            self._sums = np.zeros((0, known.shape[1]))
            self._squares = np.zeros((known.shape[1], known.shape[1]))
        known -= self._origin
        if (more := int(labels.max()) + 1 - len(self._counts)) > 0:
            self._counts = np.pad(self._counts, (0, more))
            self._sums = np.pad(self._sums, ((0, more), (0, 0)))
        self._counts += np.bincount(labels, minlength=len(self._counts))
        np.add.at(self._sums, labels, known)
        self._squares += known.T @ known

    def directions(self) -> Float[np.ndarray, "channels directions"]:
        """What `discriminant` makes of all these frames, up to rounding."""
        counts = self._counts[self._counts > 0]
        if len(counts) < 2:
            raise ValueError(UNLABELED)
        means = self._sums[self._counts > 0] / counts[:, None]
        within = (self._squares - (means.T * counts) @ means) / counts.sum()
        return _directions(within, means, counts @ means / counts.sum(), counts)


def _directions(
    within: Float[np.ndarray, "channels channels"],
    means: Float[np.ndarray, "classes channels"],
    mean: Float[np.ndarray, " channels"],
    counts: Int[np.ndarray, " classes"],
) -> Float[np.ndarray, "channels directions"]:
    within += SHRINK * np.trace(within) / len(within) * np.eye(len(within))
    apart = (means - mean) * np.sqrt(counts / counts.sum())[:, None]
    values, vectors = np.linalg.eigh(within)
    whiten = vectors / np.sqrt(values)
    between, turn = np.linalg.eigh(whiten.T @ (apart.T @ apart) @ whiten)
    kept = min(len(counts) - 1, len(between))
    between, turn = between[::-1][:kept].clip(min=0), turn[:, ::-1][:, :kept]
    directions: np.ndarray = whiten @ turn * np.sqrt(between / (between + 1))
    return directions.astype(np.float32)
