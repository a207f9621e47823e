"""Directions of features in which phones differ: clusters along them tell more about phones."""

import numpy as np
from jaxtyping import Float, Int

SHRINK = 1e-3
"""Share of the mean variance within phones that is added to all: no direction counts for ever."""


def discriminant(
    features: Float[np.ndarray, "frames channels"], phones: Int[np.ndarray, " frames"]
) -> Float[np.ndarray, "channels directions"]:
    """The linear discriminants of phones (-1: unknown, left out), one fewer than there are phones.

    Linear discriminant analysis for speech (Haeb-Umbach and Ney 1992): features times the result
    have unit covariance within a phone. Each direction is then scaled by the root of the share of
    its variance that is between phones, so that those that tell little also count little.
    """
    _, labels = np.unique(phones[phones >= 0], return_inverse=True)
    known = features[phones >= 0].astype(np.float64)
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
