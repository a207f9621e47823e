"""Features in which speakers differ less: what clusters of them then tell is more what is said."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

ENOUGH = 4
"""Frames per channel below which a speaker is not known well enough."""
SHRINK = 1e-3
"""Share of the mean variance that is added to all: directions without sound are not blown up."""


class Level:
    """Brings every speaker's features to the mean and covariance of all speakers.

    CORAL (Sun et al. 2016, "Return of frustratingly easy domain adaptation"), with speakers as the
    domains. Speakers with too few frames share one map of their own.
    """

    def __init__(
        self, maps: Mapping[str, tuple[Float[Tensor, " channels"], Float[Tensor, "channels same"]]]
    ) -> None:
        """`maps` has a mean and a matrix for each speaker, and for "" that of all others."""
        self._maps = dict(maps)

    @classmethod
    def fit(
        cls, features: Sequence[Float[np.ndarray, "_ channels"]], speakers: Sequence[str]
    ) -> "Level":
        """Learn the maps from recordings and who speaks in each."""
        channels = features[0].shape[1]
        by_speaker: dict[str, list[np.ndarray]] = {}
        for rows, speaker in zip(features, speakers, strict=True):
            by_speaker.setdefault(speaker, []).append(rows)
        known = {
            speaker: rows
            for speaker, rows in by_speaker.items()
            if speaker and sum(map(len, rows)) >= ENOUGH * channels
        }
        rest = [row for s, rows in by_speaker.items() if s not in known for row in rows]
        frames = sum(map(len, rest))
        known[""] = rest if frames >= ENOUGH * channels else list(features)
        moments = {speaker: _moments(np.concatenate(rows)) for speaker, rows in known.items()}
        pooled = [moments[s][1] for s in moments if s] or [moments[""][1]]
        color = _root(torch.stack(pooled).mean(0), 0.5)
        return cls({s: (mean, _root(cov, -0.5) @ color) for s, (mean, cov) in moments.items()})

    def __call__(
        self, rows: Float[Tensor, "frames channels"], speaker: str
    ) -> Float[Tensor, "frames channels"]:
        """The features of a recording of that speaker, leveled."""
        mean, matrix = self._maps.get(speaker, self._maps[""])
        return (rows.float() - mean.to(rows.device)) @ matrix.to(rows.device)


def _moments(
    rows: Float[np.ndarray, "frames channels"],
) -> tuple[Float[Tensor, " channels"], Float[Tensor, "channels same"]]:
    table = torch.from_numpy(rows).double()
    mean = table.mean(0)
    spread = (table - mean).T @ (table - mean) / max(1, len(table) - 1)
    spread += SHRINK * spread.diagonal().mean() * torch.eye(len(spread), dtype=torch.double)
    return mean.float(), spread


def _root(spread: Float[Tensor, "channels same"], power: float) -> Float[Tensor, "channels same"]:
    values, vectors = torch.linalg.eigh(spread.double())
    root: Tensor = vectors * values.clamp(min=1e-12) ** power @ vectors.T
    return root.float()
