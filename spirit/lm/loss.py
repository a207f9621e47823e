"""What a token costs: cross-entropy without a table of all tokens by the whole vocabulary.

For 8,192 tokens and 32,768 ids that table takes a GB, its gradient another one. Where it would be
large it is made in pieces, and made again in the backward pass: by Liger's kernels where Triton and
the package are, else by torch.
"""

import importlib.util
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spirit.vocab import Vocab

WHOLE = 1 << 27
"""Logits that "auto" makes at once: half a GB."""
PIECE = 1 << 25
"""Logits in a piece: 128 MB."""
WAYS = ("auto", "yes", "no")


def token_losses(
    head: nn.Module,
    hidden: Float[Tensor, "labels channels"],
    labels: Int[Tensor, " labels"],
    *,
    vocab: int,
    fused: str = "auto",
) -> Float[Tensor, " labels"]:
    """The loss of each label in nats, in float32; `head` makes `vocab` logits of a hidden state.

    `fused` is "auto", "yes" (always in pieces) or "no" (all at once).
    """
    if fused == "no":
        return _loss(head, hidden, labels)
    # ZeRO-3 gathers the head's weights while the head is called, not for others who look at them.
    # Liger's kernels divide by the number of labels, of which a part of a step may have none.
    if hidden.is_cuda and len(labels) and _liger() and not hasattr(head.weight, "ds_id"):
        return _by_liger(head, hidden, labels)
    if fused == "auto" and len(labels) * vocab <= WHOLE:
        return _loss(head, hidden, labels)
    return in_pieces(_loss, head, hidden, labels, vocab=vocab)


def in_pieces(
    loss: Callable[..., Float[Tensor, " labels"]],
    head: nn.Module,
    hidden: Float[Tensor, "labels channels"],
    *others: Tensor,
    vocab: int,
) -> Float[Tensor, " labels"]:
    """`loss(head, hidden, *others)` piece by piece; no piece keeps its logits."""
    size = max(64, PIECE // vocab)
    parts = zip(*(torch.split(whole, size) for whole in (hidden, *others)), strict=True)
    found = [
        checkpoint(loss, head, *part, use_reentrant=False, preserve_rng_state=False)
        for part in parts
    ]
    return torch.cat(found)


def _loss(
    head: nn.Module, hidden: Float[Tensor, "labels channels"], labels: Int[Tensor, " labels"]
) -> Float[Tensor, " labels"]:
    return F.cross_entropy(head(hidden).float(), labels, reduction="none")


@cache
def _liger() -> bool:
    return all(importlib.util.find_spec(name) for name in ("triton", "liger_kernel"))


def _by_liger(
    head: nn.Module, hidden: Float[Tensor, "labels channels"], labels: Int[Tensor, " labels"]
) -> Float[Tensor, " labels"]:
    from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction

    losses: Tensor = LigerFusedLinearCrossEntropyFunction.apply(
        hidden,
        head.weight,
        labels,
        head.bias,
        None,  # weights of classes
        -100,
        0.0,  # of the partition function's square
        0.0,  # label smoothing
        "none",
        None,  # soft cap
        False,  # that square's loss too
        torch.float32,  # sums of gradients over pieces
    )[0]
    return losses


class Modalities:
    """Which modality a label is of, to report each one's loss."""

    def __init__(self, vocab: Vocab) -> None:
        self.names = ("text", *(kind.key for kind in vocab.kinds))
        self._of = torch.zeros(vocab.size, dtype=torch.long)
        for place, kind in enumerate(vocab.kinds, start=1):
            first, count = vocab.blocks[kind]
            self._of[first : first + count] = place

    def sums(
        self, losses: Float[Tensor, " labels"], labels: Int[Tensor, " labels"]
    ) -> Float[Tensor, "2 modalities"]:
        """The sum of each modality's losses, and how many these are."""
        self._of = self._of.to(labels.device)
        both = torch.stack([losses.detach().float(), torch.ones_like(losses, dtype=torch.float32)])
        # Not by index_add, of which a GPU adds the terms in any order.
        of = self._of[labels]
        names = range(len(self.names))
        return torch.stack([torch.where(of == i, both, 0.0).sum(1) for i in names], 1)

    def means(self, sums: Float[Tensor, "2 modalities"]) -> dict[str, Tensor]:
        """The mean loss of each modality; not a number where it has no label."""
        return dict(zip(self.names, sums[0] / sums[1], strict=True))

    def losses(
        self, losses: Float[Tensor, " labels"], labels: Int[Tensor, " labels"]
    ) -> dict[str, Tensor]:
        """The mean loss of each modality of some labels."""
        return self.means(self.sums(losses, labels))
