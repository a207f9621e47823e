"""The style classifier of the released Spirit LM: wav2vec 2.0 over windows of one second."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from spirit.formats.checkpoints import fill, read_folder, read_json
from spirit.formats.hf import EPSILON, read_network
from spirit.speech.pretrained import Pretrained

WINDOW = 50
"""Frames of 20 ms that are averaged: one second."""


class ReleasedStyle:
    """16 kHz waves to one of 100 styles a second.

    The wave is brought to mean 0 and variance 1, the features of the last layer are projected and
    averaged over windows of 50 frames, the last of which may be partial, and classified.
    """

    def __init__(self, encoder: Pretrained, projector: nn.Linear, classifier: nn.Linear) -> None:
        self.encoder = encoder
        self.projector, self.classifier = projector.eval(), classifier.eval()

    @property
    def styles(self) -> int:
        """Number of styles."""
        return self.classifier.out_features

    @torch.inference_mode()
    def tokens(self, waves: Sequence[Float[np.ndarray, " _"]]) -> list[Int[np.ndarray, " _"]]:
        """The styles of every wave, which must be one chunk of at least 400 samples."""
        styles = []
        for features in self.encoder.features(waves):
            projected = self.projector(features)
            windows = [part.mean(0) for part in projected.split(WINDOW)]
            scores: Tensor = self.classifier(torch.stack(windows))
            styles.append(scores.argmax(-1).cpu().numpy().astype(np.int32))
        return styles

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "ReleasedStyle":
        """Read a folder of transformers' Wav2Vec2ForSequenceClassification; nothing is downloaded.

        Raises ValueError for a folder that holds none.
        """
        if (kind := read_json(folder / "config.json").get("model_type")) != "wav2vec2":
            raise ValueError(f"{folder} holds a model of the type {kind!r}, not wav2vec2")
        weights = read_folder(folder)
        heads = {}
        for name in ("projector", "classifier"):
            table = weights.get(f"{name}.weight")
            if table is None or table.ndim != 2:
                raise ValueError(f"{folder} lacks the weights {name}.weight; it classifies nothing")
            heads[name] = nn.Linear(table.shape[1], table.shape[0])
            own = {key.removeprefix(f"{name}."): weight for key, weight in weights.items()}
            fill(heads[name], own, folder)
        encoder = Pretrained(read_network(folder), normalize=EPSILON)
        return cls(
            encoder.to(device), heads["projector"].to(device), heads["classifier"].to(device)
        )
