"""Features to units: k-means, fitted by faiss, applied with plain torch; or a small classifier."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spirit import commit


class KMeans:
    """Centroids; the unit of a frame is the number of the nearest one.

    With a projection, distances are measured between frames times the projection.
    """

    def __init__(
        self,
        centroids: Float[Tensor, "units directions"],
        projection: Float[Tensor, "channels directions"] | None = None,
    ) -> None:
        self.centroids, self.projection = centroids, projection
        self._half = centroids.square().sum(1) / 2

    def __len__(self) -> int:
        return len(self.centroids)

    @property
    def channels(self) -> int:
        """Size of the features that it takes."""
        return (self.centroids.T if self.projection is None else self.projection).shape[0]

    @classmethod
    def fit(
        cls,
        features: Float[np.ndarray, "frames channels"],
        units: int,
        *,
        seed: int,
        iterations: int = 30,
        projection: Float[np.ndarray, "channels directions"] | None = None,
    ) -> "KMeans":
        """Cluster with faiss; the same features and seed give the same centroids."""
        import faiss

        if projection is not None:
            found = cls.fit(features @ projection, units, seed=seed, iterations=iterations)
            return cls(found.centroids, torch.from_numpy(projection))

        if len(features) < units:
            raise ValueError(
                f"{len(features)} frames are too few for {units} units; use more speech"
            )
        kmeans = faiss.Kmeans(
            features.shape[1],
            units,
            niter=iterations,
            seed=seed,
            min_points_per_centroid=1,
            max_points_per_centroid=len(features),
        )
        kmeans.train(np.ascontiguousarray(features, dtype=np.float32))
        return cls(torch.tensor(kmeans.centroids))

    def units(self, features: Float[Tensor, "frames channels"]) -> Int[np.ndarray, " frames"]:
        """The nearest centroid of each frame, by Euclidean distance."""
        rows = features.float() if self.projection is None else features.float() @ self.projection
        # |x - c|^2 without |x|^2, which no choice depends on
        nearest: np.ndarray = (rows @ self.centroids.T - self._half).argmax(1).cpu().numpy()
        return nearest.astype(np.int32)

    def to(self, device: torch.device) -> "KMeans":
        """The same centroids on another device."""
        projection = None if self.projection is None else self.projection.to(device)
        return KMeans(self.centroids.to(device), projection)

    def save(self, path: Path) -> None:
        """Write centroids and projection as safetensors."""
        table = {"centroids": self.centroids, "projection": self.projection}
        kept = {name: rows.cpu().contiguous() for name, rows in table.items() if rows is not None}
        with commit.file(path) as partial:
            save_file(kept, partial)

    @classmethod
    def load(cls, path: Path) -> "KMeans":
        """Read what `save` wrote."""
        if not path.is_file():
            raise ValueError(f"{path}: no such quantizer; make it with `spirit fit units`")
        try:
            table = load_file(path)
            return cls(table["centroids"], table.get("projection"))
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"{path} is not a quantizer ({reason}); fit it again") from None


class CTCLinear(nn.Module):
    """Three linear layers trained with CTC: the unit of a frame is the likeliest class, and a frame
    of the blank, the last class, repeats the unit to its left (Spirit LM, Nguyen et al. 2025)."""

    def __init__(self, sizes: Sequence[int]) -> None:
        """`sizes`: channels of the input, of the layers between, and the classes with the blank."""
        super().__init__()
        steps: list[nn.Module] = []
        for wide, narrow in pairwise(sizes):
            steps += [nn.Linear(wide, narrow), nn.LeakyReLU()]
        self.layers = nn.Sequential(*steps[:-1])
        self.channels, self.classes = sizes[0], sizes[-1]

    def __len__(self) -> int:
        """The classes, the blank among them: sound of blanks alone keeps it."""
        return self.classes

    def forward(
        self, features: Float[Tensor, "frames channels"]
    ) -> Float[Tensor, "frames classes"]:
        """The score of every class."""
        scores: Tensor = self.layers(features)
        return scores

    def save(self, path: Path) -> None:
        """Write the layers as safetensors."""
        weights = {name: rows.cpu().contiguous() for name, rows in self.layers.state_dict().items()}
        with commit.file(path) as partial:
            save_file(weights, partial)

    @torch.inference_mode()
    def units(self, features: Float[Tensor, "frames channels"]) -> Int[np.ndarray, " frames"]:
        """The unit of each frame; features are of one stretch, whose blanks are filled together."""
        likeliest: np.ndarray = self(features.float()).argmax(1).cpu().numpy()
        return fill_blanks(likeliest.astype(np.int32), self.classes - 1)


def fill_blanks(units: Int[np.ndarray, " frames"], blank: int) -> Int[np.ndarray, " frames"]:
    """Give every blank the nearest other unit to its left.

    The row is a ring, as in the release: blanks at its beginning take its last unit. A row of
    blanks stays as it is.
    """
    heard = np.flatnonzero(units != blank)
    if not len(heard):
        return units
    # Number -1, for frames before the first that is heard, is the last one.
    filled: np.ndarray = units[heard[np.cumsum(units != blank) - 1]]
    return filled
