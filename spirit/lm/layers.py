"""What the layers of a Llama do around attention, as functions on rows of hidden channels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from spirit.lm import kernel
from spirit.lm.weights import MANY, Int8

Apply = Callable[[Tensor], Tensor]
Add = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Layer:
    """One layer; where `direct`, hidden channels are float32."""

    qkv: Apply
    """The norm, then queries, keys and values side by side."""
    out: Add
    """What attention gives, added to the hidden channels."""
    ffn: Apply
    """The hidden channels with what the feed-forward network says to them."""


def direct(model: LlamaForCausalLM) -> bool:
    """Whether few rows are read by the kernel for 8-bit weights, norms and sums included."""
    home = model.model.layers[0].self_attn
    found = [module for module in model.modules() if isinstance(module, Int8)]
    whole = isinstance(getattr(home, "qkv", None), Int8)
    return whole and all(module.direct() for module in found)


def build(model: LlamaForCausalLM, faithful: bool) -> tuple[list[Layer], Apply]:
    """The layers, and the last norm with the output layer."""
    eps = float(model.config.rms_norm_eps)
    if direct(model):
        return [_by_kernel(layer, eps) for layer in model.model.layers], _read(
            model.model.norm, model.lm_head, eps
        )
    head = _applied(model.lm_head)
    last = _norm(model.model.norm, eps, faithful)
    return [_by_torch(layer, eps, faithful) for layer in model.model.layers], (
        lambda hidden: head(last(hidden))
    )


def _by_torch(layer: Any, eps: float, faithful: bool) -> Layer:
    attention, network = layer.self_attn, layer.mlp
    before = _norm(layer.input_layernorm, eps, faithful)
    between = _norm(layer.post_attention_layernorm, eps, faithful)
    qkv = _joined(attention, "qkv", ("q_proj", "k_proj", "v_proj"))
    gate_up = _joined(network, "gate_up", ("gate_proj", "up_proj"))
    out, down = _applied(attention.o_proj), _applied(network.down_proj)

    def ffn(hidden: Tensor) -> Tensor:
        gate, up = gate_up(between(hidden)).chunk(2, -1)
        return hidden + down(F.silu(gate).mul_(up))

    return Layer(
        qkv=lambda hidden: qkv(before(hidden)),
        out=lambda mixed, hidden: hidden + out(mixed.to(hidden.dtype)),
        ffn=ffn,
    )


def _by_kernel(layer: Any, eps: float) -> Layer:
    attention, network = layer.self_attn, layer.mlp
    out: Int8 = attention.o_proj
    gate_up: Int8 = network.gate_up
    down: Int8 = network.down_proj
    gain: Tensor = layer.post_attention_layernorm.weight.float()

    def add(mixed: Tensor, hidden: Tensor) -> Tensor:
        if len(hidden) < MANY:
            return kernel.product(mixed, out.weight, out.exact, add=hidden)
        return hidden + cast(Tensor, out(mixed.to(torch.bfloat16)))

    def ffn(hidden: Tensor) -> Tensor:
        if len(hidden) < MANY:
            inner = kernel.product(
                hidden, gate_up.weight, gate_up.exact, gain=gain, eps=eps, gated=True
            )
            return kernel.product(inner, down.weight, down.exact, add=hidden)
        normed = F.rms_norm(hidden, gain.shape, gain, eps)
        gate, up = gate_up(normed.to(torch.bfloat16)).chunk(2, -1)
        return hidden + cast(Tensor, down(F.silu(gate).mul_(up)))

    return Layer(qkv=_read(layer.input_layernorm, attention.qkv, eps), out=add, ffn=ffn)


def _read(norm: nn.Module, matrix: Int8, eps: float) -> Apply:
    gain = cast(Tensor, norm.weight).float()

    def read(hidden: Tensor) -> Tensor:
        if len(hidden) < MANY:
            return kernel.product(hidden, matrix.weight, matrix.exact, gain=gain, eps=eps)
        normed = F.rms_norm(hidden, gain.shape, gain, eps)
        return cast(Tensor, matrix(normed.to(torch.bfloat16)))

    return read


def _norm(norm: nn.Module, eps: float, faithful: bool) -> Apply:
    if faithful:
        return cast(Apply, norm)
    weight = cast(Tensor, norm.weight)
    return lambda hidden: F.rms_norm(hidden, weight.shape, weight, eps)


def _applied(layer: nn.Module) -> Apply:
    """A layer as a function, without what `nn.Module` does around it."""
    if type(layer) is nn.Linear:
        return lambda x: F.linear(x, layer.weight)
    return layer.forward


def _joined(home: nn.Module, whole: str, parts: Sequence[str]) -> Apply:
    """Projections of one input: in one piece where they were fused, else one by one."""
    if hasattr(home, whole):
        return _applied(getattr(home, whole))
    applied = [_applied(getattr(home, part)) for part in parts]
    return lambda x: torch.cat([apply(x) for apply in applied], -1)
