"""Masked prediction: the task that teaches HuBERT."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from spirit.speech.hubert import Hubert


class MaskedPrediction(nn.Module):
    """HuBERT's training task: name the cluster of frames that the transformer cannot see.

    Hsu et al. 2021, section II-B: a frame's score for a cluster is the cosine between its projected
    output and the cluster's learned code, over a temperature of 0.1.
    """

    TEMPERATURE = 0.1

    def __init__(self, hubert: Hubert, clusters: int, width: int = 128) -> None:
        super().__init__()
        self.hubert = hubert
        self.project = nn.Linear(hubert.channels, width)
        self.codes = nn.Parameter(torch.randn(clusters, width))

    def forward(
        self,
        padded: Float[Tensor, "batch padded"],
        masked: Bool[Tensor, "batch frames"],
        targets: Int[Tensor, "batch frames"],
        seen: float = 0.0,
    ) -> dict[str, Tensor]:
        """Cross-entropies in nats and accuracies, of masked and of seen frames with a target.

        `loss` is that of the masked frames plus `seen` times that of the others; a frame without a
        target has -100.
        """
        known = targets >= 0
        hidden = self.hubert(padded, None, masked)[known]
        project = nn.functional.normalize(self.project(hidden).float(), dim=-1)
        logits = project @ nn.functional.normalize(self.codes, dim=-1).T / self.TEMPERATURE
        wanted, hid = targets[known], masked[known]
        nats = nn.functional.cross_entropy(logits, wanted, reduction="none")
        right = (logits.argmax(-1) == wanted).float()
        count, rest = hid.sum().clamp(min=1), (~hid).sum().clamp(min=1)
        blind, plain = (nats * hid).sum() / count, (nats * ~hid).sum() / rest
        return {
            "loss": blind + seen * plain,
            "masked": blind.detach(),
            "seen": plain.detach(),
            "masked_accuracy": (right * hid).sum() / count,
            "seen_accuracy": (right * ~hid).sum() / rest,
        }


def draw_mask(
    batch: int, frames: int, rng: np.random.Generator, *, start: float, span: int
) -> Bool[np.ndarray, "batch frames"]:
    """Hide spans of `span` frames; each frame begins one with probability `start`, some always."""
    begins = rng.random((batch, frames)) < start
    begins[np.arange(batch), rng.integers(max(1, frames - span + 1), size=batch)] |= ~begins.any(
        axis=1
    )
    masked = begins.copy()
    for shift in range(1, min(span, frames)):
        masked[:, shift:] |= begins[:, :-shift]
    return masked
