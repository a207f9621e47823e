"""Quantizers that others fitted: k-means as arrays, the CTC-linear quantizer of Spirit LM."""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spirit.formats.checkpoints import fill, read_stored
from spirit.speech.quantizer import CTCLinear, KMeans

CENTROIDS = ("centroids", "cluster_centers")
"""What a table of centroids is called in safetensors and pickles."""


def read_quantizer(path: Path) -> KMeans | CTCLinear:
    """The quantizer in a file: safetensors or `.npy` with one centroid a row, or the release's
    dictionary of a CTC-linear quantizer (as a pickle, or its weights as safetensors).

    Raises ValueError for a file that cannot be read or holds neither.
    """
    path = Path(path)
    if path.suffix == ".npy":
        return _kmeans(read_array(path), path)
    content: Mapping[str, Any] = read_stored(path)
    weights = content.get("model_weight", content)
    if "0.weight" in weights:
        return _ctc_linear(weights, content.get("model_cfg") or {}, path)
    for name in CENTROIDS:
        if isinstance(weights.get(name), Tensor):
            return _kmeans(weights[name], path, weights.get("projection"))
    raise ValueError(
        f"{path} holds neither centroids ({' or '.join(CENTROIDS)}) nor the layers of a CTC-linear "
        "quantizer; save the centroids as .npy, one a row"
    )


def read_array(path: Path) -> Tensor:
    """The numbers of an `.npy` file. Raises ValueError if it is missing or holds something else."""
    if not path.is_file():
        raise ValueError(f"{path}: no such quantizer; check the path")
    try:
        return torch.from_numpy(np.load(path, allow_pickle=False))
    except (ValueError, OSError, EOFError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} cannot be read as an array of numbers ({reason}); save the centroids again"
        ) from None


def _kmeans(centroids: Tensor, path: Path, projection: Tensor | None = None) -> KMeans:
    if centroids.ndim != 2 or not centroids.is_floating_point() or not len(centroids):
        raise ValueError(
            f"{path} holds {centroids.dtype} of shape {tuple(centroids.shape)}; centroids are a "
            "table of floats, units by channels"
        )
    if not bool(centroids.isfinite().all()):
        raise ValueError(f"{path}: some centroids are NaN or infinite; fit them again")
    if projection is not None and projection.shape[1:] != centroids.shape[1:]:
        raise ValueError(f"{path}: projection and centroids have different directions")
    return KMeans(centroids.float(), projection)


def _ctc_linear(
    weights: Mapping[str, Tensor], settings: Mapping[str, Any], path: Path
) -> CTCLinear:
    # Linear layers stand at even places, with a LeakyReLU between.
    tables = [
        weights[name]
        for place in range(0, 2 * len(weights), 2)
        if isinstance(weights.get(name := f"{place}.weight"), Tensor)
    ]
    if any(table.ndim != 2 for table in tables) or any(
        before.shape[0] != after.shape[1] for before, after in pairwise(tables)
    ):
        raise ValueError(f"{path}: its linear layers do not follow on one another")
    sizes = [tables[0].shape[1], *(table.shape[0] for table in tables)]
    units, channels = settings.get("vocab_size", sizes[-1] - 1), settings.get("dim", sizes[0])
    if (units, channels) != (sizes[-1] - 1, sizes[0]):
        raise ValueError(
            f"{path}: model_cfg says {units} units of {channels} channels but the weights make "
            f"{sizes[-1] - 1} of {sizes[0]}, a blank apart; the two are not from one model"
        )
    quantizer = CTCLinear(sizes)
    fill(quantizer, {f"layers.{name}": weight for name, weight in weights.items()}, path)
    return quantizer.eval()
