"""A network of the wav2vec 2.0 family on a CPU: clips of all lengths together, and none padded.

Convolutions and attention take one clip after the other, everything else the frames of all of them
as one long row. So a clip has the very features that it has alone, nothing is computed of padding,
and what the first convolutions make, of which there is most, stays in the caches.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

TILE = 2.0
"""Seconds of a clip that go through all convolutions before the next ones do: behind the first one
of a base model 2 s are 13 MB in fp32, and a CPU's caches hold little more."""


def packable(network: Any) -> bool:
    """Whether this knows the network: HuBERT and wav2vec 2.0 without adapters, not WavLM."""
    layers = network.encoder.layers
    return network.config.model_type in ("hubert", "wav2vec2") and all(
        getattr(layer, "adapter_layer", None) is None for layer in layers
    )


def packed(
    network: Any, clips: Sequence[Float[Tensor, " _"]], rate: int
) -> list[Float[Tensor, "_ channels"]]:
    """What the network's last layer makes of each 16 kHz clip, in the precision of its weights.

    `rate` is frames in a second. A norm over time (GroupNorm, in base models behind the first
    convolution) is that of the whole clip.
    """
    layers = list(network.feature_extractor.conv_layers)
    rows = [_convolved(layers, clip, rate) for clip in clips]
    counts = [len(row) for row in rows]
    hidden = network.feature_projection(torch.cat(rows)[None])
    if isinstance(hidden, tuple):  # wav2vec 2.0 gives the unprojected ones too
        hidden = hidden[0]
    encoder, stable = network.encoder, network.config.do_stable_layer_norm
    where = [encoder.pos_conv_embed(clip) for clip in hidden.split(counts, 1)]
    hidden = hidden + torch.cat(where, 1)
    if not stable:
        hidden = encoder.layer_norm(hidden)
    for layer in encoder.layers:
        if stable:
            hidden = hidden + _attended(layer.attention, layer.layer_norm(hidden), counts)
            hidden = hidden + layer.feed_forward(layer.final_layer_norm(hidden))
        else:
            hidden = layer.layer_norm(hidden + _attended(layer.attention, hidden, counts))
            hidden = layer.final_layer_norm(hidden + layer.feed_forward(hidden))
    if stable:
        hidden = encoder.layer_norm(hidden)
    return list(hidden[0].split(counts))


def _attended(
    attention: Any, hidden: Float[Tensor, "1 frames channels"], counts: Sequence[int]
) -> Float[Tensor, "1 frames channels"]:
    """Attention of every clip to itself."""
    three = (attention.q_proj(hidden), attention.k_proj(hidden), attention.v_proj(hidden))
    heads = [each.unflatten(2, (attention.num_heads, -1)).transpose(1, 2) for each in three]
    clips = zip(*(each.split(counts, 2) for each in heads), strict=True)
    seen = [nn.functional.scaled_dot_product_attention(*clip) for clip in clips]
    together: Tensor = attention.out_proj(torch.cat(seen, 2).transpose(1, 2).flatten(2))
    return together


def _convolved(
    layers: list[Any], clip: Float[Tensor, " samples"], rate: int
) -> Float[Tensor, "frames channels"]:
    reach, hop = 1, 1
    for layer in layers:
        reach += (layer.conv.kernel_size[0] - 1) * hop
        hop *= layer.conv.stride[0]
    frames, size = (len(clip) - reach) // hop + 1, max(1, round(TILE * rate))
    weight, bias = _first(layers[0], clip)
    sound, pieces = clip.to(weight.dtype), []
    for start in range(0, frames, size):
        stop = min(frames, start + size)
        hidden = sound[None, None, start * hop : (stop - 1) * hop + reach]
        hidden = nn.functional.conv1d(hidden, weight, bias, layers[0].conv.stride)
        for number, layer in enumerate(layers):
            if number:
                hidden = layer.conv(hidden)
            norm = getattr(layer, "layer_norm", None)
            if norm is not None and not isinstance(norm, nn.GroupNorm):
                hidden = norm(hidden.transpose(1, 2)).transpose(1, 2)
            hidden = layer.activation(hidden)
        pieces.append(hidden[0].T)
    return torch.cat(pieces)


def _first(layer: Any, clip: Float[Tensor, " samples"]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the first convolution, with the norm over time in them if it has one.

    Mean and variance of what a convolution gives follow from those of the samples under its kernel,
    whose covariance is small and need not be rounded.
    """
    conv, norm = layer.conv, getattr(layer, "layer_norm", None)
    if not isinstance(norm, nn.GroupNorm):
        return conv.weight, conv.bias
    assert conv.in_channels == 1
    assert norm.num_groups == norm.num_channels
    under = clip.double().unfold(0, conv.kernel_size[0], conv.stride[0])
    middle = under.mean(0)
    covariance = under.T @ under / len(under) - middle[:, None] * middle
    weight = conv.weight[:, 0].double()
    variance = ((weight @ covariance) * weight).sum(1).clamp(min=0)
    gain = norm.weight.double() / (variance + norm.eps).sqrt()
    # A bias of the convolution is part of the mean and goes with it.
    shift = norm.bias.double() - gain * (weight @ middle)
    return (gain[:, None, None] * conv.weight).to(conv.weight.dtype), shift.to(conv.weight.dtype)
