"""The forward pass of a Llama with as little around its matrices as can be."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LlamaForCausalLM

from spirit.lm import layers
from spirit.lm.graphs import Graphs


class Llama:
    """A Llama of transformers, its modules used where they are; it keeps nothing of what it reads.

    As long as its weights are not prepared (`spirit.lm.weights`), its sums are those of
    transformers to the last bit, so that greedy answers in bf16 are the same, too. After that
    whatever is fastest is done: in bf16 on a CPU, angles and attention are float32.
    `kept` are ids that it was told to remember, and their keys and values. Call it in
    `torch.inference_mode`.
    """

    def __init__(self, model: LlamaForCausalLM) -> None:
        config = model.config
        self.positions = int(config.max_position_embeddings)
        self.heads = int(config.num_attention_heads)
        self.kv_heads = int(config.num_key_value_heads)
        self.channels = int(getattr(config, "head_dim", 0) or config.hidden_size // self.heads)
        self._faithful = not hasattr(model.model.layers[0].self_attn, "qkv")
        self._embedding, self._last = model.model.embed_tokens, model.lm_head
        self._layers, self._head = layers.build(model, self._faithful)
        # The kernel for 8-bit weights adds to hidden channels in float32.
        self._hidden = torch.float32 if layers.direct(model) else self._embedding.weight.dtype
        with torch.inference_mode():
            places = torch.arange(self.positions, device=self.device)[None]
            rope = model.model.rotary_emb(torch.zeros(1, device=self.device), places)
            cos, sin = (table[0].float() for table in rope)
        half = self.channels // 2
        self.cos, self.sin = cos, torch.cat([-sin[:, :half], sin[:, half:]], -1)
        self.graphs = Graphs() if self.device.type == "cuda" else None
        self.kept: tuple[list[int], Tensor] | None = None

    def reads(self, model: LlamaForCausalLM) -> bool:
        """Whether these are still the weights of this model."""
        held = (self._embedding, self._last)
        same = all(
            a is b for a, b in zip(held, (model.model.embed_tokens, model.lm_head), strict=True)
        )
        return same and self.cos.device == self.device

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        device: torch.device = self._embedding.weight.device
        return device

    @property
    def cached(self) -> torch.dtype:
        """The type of keys and values that are kept: float32 on a CPU, where attention is fastest
        in that, unless transformers is followed; else that of the weights."""
        if self.device.type == "cpu" and not self._faithful:
            return torch.float32
        dtype: torch.dtype = self._embedding.weight.dtype
        return dtype

    def shape(self, batch: int, capacity: int) -> tuple[int, ...]:
        """Of a cache for so many rows of so many ids."""
        return (len(self._layers), 2, batch, self.kv_heads, capacity, self.channels)

    def hidden(self, ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens channels"]:
        """What `said` turns into scores, for every id of rows padded on the right; no cache."""

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return self.mix(q, k, v, None, is_causal=True)

        span = slice(ids.shape[1])
        hidden = self.through(ids, self.cos[span, None], self.sin[span, None], attend)
        return hidden.view(*ids.shape, -1)

    def said(self, hidden: Float[Tensor, "rows channels"]) -> Float[Tensor, "rows vocab"]:
        """The scores of the next id, in float32."""
        return self._head(hidden).float()

    def through(
        self,
        ids: Int[Tensor, "batch tokens"],
        cos: Float[Tensor, "*places channels"],
        sin: Float[Tensor, "*places channels"],
        attend: Callable[[int, Tensor, Tensor, Tensor], Tensor],
    ) -> Float[Tensor, "rows hidden"]:
        """All layers; `attend` is given queries, keys and values of (batch, heads, tokens,
        channels) and keeps the keys and values."""
        batch, tokens = ids.shape
        turning, cached = self.heads + self.kv_heads, self.cached
        halves = (2, self.channels // 2)
        hidden: Tensor = self._embedding.weight[ids.flatten()].to(self._hidden)
        for number, layer in enumerate(self._layers):
            made = layer.qkv(hidden)
            made = made if self._faithful else made.float()
            made = made.view(batch, tokens, -1, self.channels)
            turned, v = made[:, :, :turning], made[:, :, turning:].to(cached).transpose(1, 2)
            swapped = turned.reshape(batch, tokens, turning, *halves).flip(-2).flatten(-2)
            if self._faithful:
                turned = turned * cos.to(made.dtype) + swapped * sin.to(made.dtype)
            else:
                turned = torch.addcmul(turned * cos, swapped, sin).to(cached)
            turned = turned.transpose(1, 2)
            q, k = turned[:, : self.heads], turned[:, self.heads :]
            mixed = attend(number, q, k, v).transpose(1, 2)
            hidden = layer.ffn(layer.out(mixed.reshape(batch * tokens, -1), hidden))
        return hidden

    def mix(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, is_causal: bool = False
    ) -> Float[Tensor, "batch heads tokens channels"]:
        """Attention of (batch, heads, tokens, channels)."""
        gqa = self.heads != self.kv_heads
        mixed: Tensor = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=gqa
        )
        return mixed
