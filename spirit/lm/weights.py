"""The weights of a Llama as generation wants them: fused, laid out for the CPU, or quantized."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel

from spirit.lm import kernel

Precision = Literal["auto", "fp32", "bf16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
FLOATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
GROUPS = (64, 32)
"""Neighbouring int4 weights of a row that share a scale: the larger group is a little faster."""
MANY = 32
"""Rows from which on int8 weights are faster unpacked than multiplied as they are."""
ROPES = ("default", "linear", "llama3")
"""Kinds of rotary embedding whose angles depend on the position alone."""
GB = 1e9


def floating(precision: str, device: torch.device) -> torch.dtype:
    """The type of everything that is not quantized. Raises ValueError for what does not exist."""
    if precision not in PRECISIONS:
        raise ValueError(f"no dtype {precision!r}; there are {', '.join(PRECISIONS)}")
    if precision == "int4" and device.type != "cpu":
        raise ValueError(f"int4 weights are for the CPU, not {device}; there is --dtype int8")
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return FLOATS.get(precision, torch.bfloat16)


def prepare(model: PreTrainedModel, precision: Precision, device: torch.device) -> PreTrainedModel:
    """Fuse the projections that read the same input, quantize if asked, and move to the device.

    The model is changed in place, for good: it still answers as before, but is no longer to be
    trained or saved. It is given in the type that `floating` says. int8 has a scale for each output
    channel, int4 a scale and a zero for each group of weights, and an output layer in int8.
    Raises ValueError for a precision that does not exist, and where the device has no room.
    """
    dtype = floating(precision, device)
    if not suits(model):
        if precision in ("int8", "int4"):
            raise ValueError(f"a model of this shape cannot be read in {precision}; --dtype bf16")
        return cast(PreTrainedModel, model.to(device, dtype).eval())
    bytes_each = {"int8": 1.0, "int4": 0.5 + 4 / min(GROUPS)}.get(precision, dtype.itemsize)
    needed = sum(parameter.numel() for parameter in model.parameters()) * bytes_each
    with told_if_full(device, needed, "the weights", "--dtype int8, or --device cpu"):
        if precision in FLOATS or precision == "auto":
            model.to(device, dtype)
        with torch.no_grad():
            for layer in model.model.layers:
                for home, names, joined in (
                    (layer.self_attn, ("q_proj", "k_proj", "v_proj"), "qkv"),
                    (layer.mlp, ("gate_proj", "up_proj"), "gate_up"),
                ):
                    parts = [getattr(home, name) for name in names]
                    whole = _made([part.weight for part in parts], precision)
                    setattr(home, joined, whole)
                    start = 0
                    for name, part in zip(names, parts, strict=True):
                        setattr(home, name, Slice(whole, start, start := start + part.out_features))
                for home, name in ((layer.self_attn, "o_proj"), (layer.mlp, "down_proj")):
                    _remake(home, name, precision)
            _remake(model, "lm_head", "int8" if precision == "int4" else precision)
        return cast(PreTrainedModel, model.to(device).eval())


def suits(model: PreTrainedModel) -> bool:
    """Whether this is a Llama whose forward pass is ours: no biases, adapters or odd angles."""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    layers = [m for m in model.modules() if "Linear" in type(m).__name__ or type(m) in KINDS]
    return (
        type(model) is LlamaForCausalLM
        and config.hidden_act == "silu"
        and not (config.attention_bias or config.mlp_bias)
        and rope.get("rope_type", "default") in ROPES
        and all(type(layer) is nn.Linear or type(layer) in KINDS for layer in layers)
    )


@contextmanager
def told_if_full(device: torch.device, needed: float, what: str, helps: str) -> Iterator[None]:
    """Say in one line how many bytes were needed for what, where the device has no room."""
    try:
        yield
    except RuntimeError as error:
        # Of a CPU's allocator the message is all that there is.
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise ValueError(
                f"{device} has no room for {what}, {needed / GB:.1f} GB; it may help: {helps}"
            ) from None
        raise


class Plain(nn.Module):
    """y = W x as torch does it."""

    def __init__(self, weight: Float[Tensor, "out channels"]) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows out"]:
        return F.linear(x, self.weight)


class Packed(nn.Module):
    """y = W x in bf16 on a CPU, W laid out once in oneDNN's blocks.

    For a single row it streams the weights at several times the rate of `F.linear`, which reads
    them as they lie.
    """

    def __init__(self, weight: Float[Tensor, "out channels"]) -> None:
        super().__init__()
        # An opaque tensor, for one row; as a buffer it could not be moved or stored anyway.
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)

    @staticmethod
    def available() -> bool:
        """Whether this machine's CPU computes in bf16."""
        there: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        return there and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows out"]:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")
        return y


class Int8(nn.Module):
    """y = W x, W in 8 bits with a scale for each output channel, symmetric.

    Few rows go to our own kernel where it is available, and then W is multiplied with what is read
    in 16 bits; else they go to torch's.
    """

    weight: Tensor
    scale: Tensor
    exact: Tensor
    """The scale in float32, for the kernel."""

    def __init__(self, weight: Float[Tensor, "out channels"]) -> None:
        super().__init__()
        exact = weight.float()
        scale = (exact.abs().amax(1) / 127).clamp(min=1e-12).to(torch.bfloat16)
        codes = (exact / scale.float()[:, None]).round().clamp(-127, 127)
        self.register_buffer("weight", codes.to(torch.int8).contiguous())
        self.register_buffer("scale", scale)
        self.register_buffer("exact", scale.float())

    def direct(self) -> bool:
        """Whether the kernel reads these weights."""
        fits = self.weight.shape[1] <= kernel.CHANNELS
        return fits and self.weight.device.type == "cpu" and kernel.available()

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows out"]:
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) >= MANY:
            return F.linear(x, self.weight.to(x.dtype)) * self.scale
        if self.direct():
            y = kernel.product(rows.float().contiguous(), self.weight, self.exact).to(x.dtype)
        else:
            y = torch._weight_int8pack_mm(rows, self.weight, self.scale)
        return y.view(*x.shape[:-1], -1)


class Int4(nn.Module):
    """y = W x, W in 4 bits on a CPU, a scale and a zero for each group of channels of a row."""

    weight: Tensor
    scale: Tensor

    def __init__(self, weight: Float[Tensor, "out channels"]) -> None:
        super().__init__()
        out, channels = weight.shape
        fitting = [size for size in GROUPS if channels % size == 0]
        if not fitting or out % 16:
            raise ValueError(f"weights of {out} by {channels} do not fit into int4; --dtype int8")
        self.group = fitting[0]
        exact = weight.float().view(out, -1, self.group)
        low, high = exact.amin(-1), exact.amax(-1)
        scale = ((high - low) / 15).clamp(min=1e-9).to(torch.bfloat16)
        # torch reads a code as (code - 8) * scale + zero.
        zero = (low + 8 * scale.float()).to(torch.bfloat16)
        codes = (exact - zero.float()[..., None]) / scale.float()[..., None]
        codes = (codes.round() + 8).clamp(0, 15).to(torch.int32).view(out, channels)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        self.register_buffer("weight", packed)
        self.register_buffer("scale", torch.stack([scale.T, zero.T], -1).contiguous())

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows out"]:
        rows = x.reshape(-1, x.shape[-1])
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            rows, self.weight, self.group, self.scale
        )
        return y.view(*x.shape[:-1], -1)


class Slice(nn.Module):
    """One of the projections that were fused, for transformers' own forward."""

    def __init__(self, whole: nn.Module, start: int, stop: int) -> None:
        super().__init__()
        self._whole = (whole,)  # no child of this module: it has its own place in the model
        self._span = slice(start, stop)

    def forward(self, x: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows out"]:
        y: Tensor = self._whole[0](x)[..., self._span]
        return y


KINDS = (Plain, Packed, Int8, Int4, Slice)


def _remake(home: nn.Module, name: str, precision: Precision) -> None:
    """Lay out one matrix anew, if it has to be; a tied output layer is then a copy."""
    made = _made([getattr(home, name).weight], precision)
    if not isinstance(made, Plain):
        setattr(home, name, made)


def _made(weights: Sequence[Tensor], precision: Precision) -> nn.Module:
    """One layer of several matrices with the same input."""
    weight = torch.cat(list(weights)) if len(weights) > 1 else weights[0].detach()
    if precision == "int8":
        return Int8(weight)
    if precision == "int4":
        return Int4(weight)
    on_cpu = weight.device.type == "cpu" and weight.dtype == torch.bfloat16
    return Packed(weight) if on_cpu and Packed.available() else Plain(weight)
