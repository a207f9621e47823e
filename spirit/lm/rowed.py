"""Documents in rows of one length, as they come: shapes never change, so that everything compiles.

Attention is FlexAttention (Dong et al. 2024, "Flex Attention: a programming model for generating
optimized attention kernels") with a mask of blocks: what is empty of a row costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128
"""Tokens in a block, each way; a row is made of whole blocks."""
IGNORED = -100
VARIANTS = 64
"""Shapes that something may be compiled for."""


@dataclass(frozen=True)
class Rowed:
    """The documents of a batch, in rows."""

    ids: Int[Tensor, "batch tokens"]
    positions: Int[Tensor, "batch tokens"]
    """Of a token in its document, from 0."""
    asked: Int[Tensor, " labels"]
    """The places whose next token is learned, in the rows one behind the other."""
    labels: Int[Tensor, " labels"]
    """That next token."""

    @property
    def origin(self) -> Int[Tensor, " labels"]:
        """Where in the rows, one behind the other, a label's question stood."""
        return self.asked

    def to(self, device: torch.device) -> "Rowed":
        """The same on another device."""
        tensors = (self.ids, self.positions, self.asked, self.labels)
        return Rowed(*(moved(tensor, device) for tensor in tensors))


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on another device; only from pinned memory does a GPU fetch it by itself."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def lay_out(
    ids: Int[Tensor, "batch tokens"],
    document: Int[Tensor, "batch tokens"],
    labels: Int[Tensor, "batch tokens"],
) -> Rowed:
    """Number the places of packed rows; `document` counts the documents of each row, -1 on padding.

    A label is the token itself; the token before it in the same document learns to say it.
    """
    count = torch.arange(ids.shape[1]).expand_as(document)
    change = torch.ones_like(document, dtype=torch.bool)
    change[:, 1:] = document[:, 1:] != document[:, :-1]
    positions = count - torch.where(change, count, 0).cummax(1).values
    learned = torch.full_like(labels, IGNORED)
    learned[:, :-1] = torch.where(positions[:, 1:] > 0, labels[:, 1:], IGNORED)
    asked = (learned.flatten() != IGNORED).nonzero()[:, 0]
    return Rowed(ids, positions, asked, learned.flatten()[asked])


def mask(positions: Int[Tensor, "batch tokens"]) -> BlockMask:
    """Who sees whom: a token itself and what stands before it in its document.

    Found from the first places of documents, without a table of all pairs. They never fall along a
    row: the first token of a block of queries looks back farthest, the last one least far.
    """
    first = torch.arange(positions.shape[1], device=positions.device) - positions
    count = positions.shape[1] // BLOCK
    own = torch.arange(count, device=positions.device)
    farthest, nearest = first[:, ::BLOCK, None], first[:, BLOCK - 1 :: BLOCK, None]
    seen = (own <= own[:, None]) & (own * BLOCK + BLOCK > farthest)
    whole = (own < own[:, None]) & (own * BLOCK >= nearest)

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (key >= first[batch, query])

    made: BlockMask = BlockMask.from_kv_blocks(
        *_listed(seen & ~whole), *_listed(whole), BLOCK_SIZE=BLOCK, mask_mod=visible
    )
    return made


def _listed(blocks: Bool[Tensor, "batch queries keys"]) -> tuple[Tensor, Tensor]:
    """How many blocks each block of queries sees, and which: these first."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1).int()[:, None], order.int()[:, None]


def attend(
    module: torch.nn.Module,
    query: Float[Tensor, "batch heads tokens channels"],
    key: Float[Tensor, "batch kv_heads tokens channels"],
    value: Float[Tensor, "batch kv_heads tokens channels"],
    attention_mask: None,
    *,
    blocks: BlockMask,
    scaling: float,
    **_: Any,
) -> tuple[Float[Tensor, "batch tokens heads channels"], None]:
    """Attention of `Rowed` documents (transformers' interface)."""
    # Under autocast rotated queries and keys are float32; the kernel wants one dtype.
    query, key = query.to(value.dtype), key.to(value.dtype)
    shared = query.shape[1] != key.shape[1]
    if query.requires_grad and not query.is_cuda:
        # On CPUs FlexAttention has no backward pass: there the mask is over all pairs.
        batch, place = torch.arange(len(query)), torch.arange(query.shape[2])
        seen = blocks.mask_mod(batch[:, None, None], place[0], place[:, None], place)
        answer = F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen[:, None], scale=scaling, enable_gqa=shared
        )
        return answer.transpose(1, 2), None
    compiled = query.is_cuda and not torch.compiler.is_compiling()
    flex: Callable[..., Any] = _kernel() if compiled else flex_attention
    found: Tensor = flex(query, key, value, block_mask=blocks, scale=scaling, enable_gqa=shared)
    return found.transpose(1, 2), None


def allow_variants() -> None:
    """Let dynamo compile for every shape: training, held-out documents and text for retention have
    their own, each with and without gradients, and at the ninth it would stop compiling, after
    which FlexAttention is no kernel any more."""
    from torch._dynamo import config

    config.recompile_limit = max(config.recompile_limit, VARIANTS)


@cache
def _kernel() -> Callable[..., Any]:
    """FlexAttention is a kernel only where it is compiled."""
    allow_variants()
    compiled: Callable[..., Any] = torch.compile(flex_attention, dynamic=False)
    return compiled
