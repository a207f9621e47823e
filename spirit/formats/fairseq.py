"""HuBERT as the releases of Spirit LM and TWIST store it: fairseq's names in a plain dictionary.

`{"model_cfg", "task_cfg", "model_weight"}`; the settings are those of fairseq's HuBERT (Ott et al.
2019; Hsu et al. 2021), and settings that are absent have its defaults.
"""

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import HubertConfig, HubertModel

from spirit.formats.checkpoints import fill, read_stored, rename_weight_norm
from spirit.speech.pretrained import Pretrained

CONVOLUTIONS = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
"""fairseq's default: 50 Hz."""
MOST = 64
"""Convolutions beyond this number are no speech encoder."""
EPSILON = 1e-5
"""What fairseq adds to the variance of a wave that it normalizes."""

# fairseq's names to those of transformers, in order; a name takes the first that fits.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"^mask_emb$", "masked_spec_embed"),
    (r"^feature_extractor\.conv_layers\.(\d+)\.0\.", r"feature_extractor.conv_layers.\1.conv."),
    (
        r"^feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?",
        r"feature_extractor.conv_layers.\1.layer_norm.",
    ),
    (r"^post_extract_proj\.", "feature_projection.projection."),
    (r"^layer_norm\.", "feature_projection.layer_norm."),
    (r"^encoder\.pos_conv\.0\.", "encoder.pos_conv_embed.conv."),
    (r"^(encoder\.layers\.\d+)\.self_attn\.", r"\1.attention."),
    (r"^(encoder\.layers\.\d+)\.self_attn_layer_norm\.", r"\1.layer_norm."),
    (r"^(encoder\.layers\.\d+)\.fc1\.", r"\1.feed_forward.intermediate_dense."),
    (r"^(encoder\.layers\.\d+)\.fc2\.", r"\1.feed_forward.output_dense."),
)


def read_hubert(path: Path, layer: int, *, padded: bool = False) -> Pretrained:
    """A HuBERT from its converted checkpoint, giving the features of `layer` (counted from 1; 0:
    what the whole network gives).

    Its sizes come from the file. Sequences of odd length, which fairseq pads to an even one and
    masks, need neither: the mask makes the two the same. Raises ValueError for a file that cannot
    be read or does not fit its own settings.
    """
    checkpoint = read_stored(path)
    weights = checkpoint.get("model_weight")
    settings = checkpoint.get("model_cfg")
    if not isinstance(weights, dict) or not isinstance(settings, dict):
        raise ValueError(
            f"{path} is not a converted HuBERT: it needs model_cfg and model_weight; for a "
            "checkpoint straight from fairseq run `spirit convert` first"
        )
    task = checkpoint.get("task_cfg") or {}
    if (rate := task.get("sample_rate", 16_000)) != 16_000:
        raise ValueError(f"{path}: this HuBERT hears {rate} samples a second; 16000 can be given")
    try:
        network = HubertModel(_shape(settings))
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise ValueError(f"{path}: model_cfg is no HuBERT ({error}); download it again") from None
    renamed = _renamed(weights)
    projection = "feature_projection.projection."
    if f"{projection}weight" not in renamed:
        # fairseq leaves the projection out where it would not change the width.
        width = network.config.hidden_size
        renamed[f"{projection}weight"] = torch.eye(width)
        renamed[f"{projection}bias"] = torch.zeros(width)
    renamed.setdefault("masked_spec_embed", network.masked_spec_embed.detach())
    fill(network, renamed, path)
    normalize = EPSILON if task.get("normalize") else None
    return Pretrained(network, layer, normalize=normalize, padded=padded)


def parse_convolutions(text: str) -> list[tuple[int, int, int]]:
    """Channels, kernel and stride of every convolution from fairseq's expression for them, such as
    `[(512,10,5)] + [(512,3,2)] * 4`.

    The expression is parsed, not evaluated: lists of tuples of integers, their sums and multiples.
    Raises ValueError for everything else.
    """
    try:
        layers = _parse(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        layers = []
    if not layers:
        raise ValueError(
            f"conv_feature_layers {text[:80]!r} is not a list of (channels, kernel, stride)"
        )
    return layers


def _parse(node: ast.expr) -> list[tuple[int, int, int]]:
    match node:
        case ast.List(elts=rows) | ast.Tuple(elts=rows):
            found = [_convolution(row) for row in rows]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            found = _parse(left) + _parse(right)
        case (
            ast.BinOp(left=ast.Constant(value=times), op=ast.Mult(), right=rows)
            | ast.BinOp(left=rows, op=ast.Mult(), right=ast.Constant(value=times))
        ) if type(times) is int and 0 <= times <= MOST:
            found = _parse(rows) * times
        case _:
            raise ValueError
    if len(found) > MOST:
        raise ValueError
    return found


def _convolution(node: ast.expr) -> tuple[int, int, int]:
    if not isinstance(node, ast.Tuple | ast.List) or len(node.elts) != 3:
        raise ValueError
    sizes = [part.value for part in node.elts if isinstance(part, ast.Constant)]
    channels, kernel, stride = (size for size in sizes if type(size) is int and size > 0)
    return channels, kernel, stride


def _shape(settings: Mapping[str, Any]) -> HubertConfig:
    """The settings of transformers' HuBERT for those of fairseq's."""
    convolutions = parse_convolutions(str(settings.get("conv_feature_layers", CONVOLUTIONS)))
    modes = {"default": "group", "layer_norm": "layer"}
    mode = str(settings.get("extractor_mode", "default")).rpartition(".")[2]
    if mode not in modes:
        raise ValueError(f"extractor_mode {mode!r} is neither default nor layer_norm")
    if settings.get("pos_conv_depth", 1) != 1 or settings.get("conv_pos_batch_norm"):
        raise ValueError("positions by several convolutions or a batch norm are not known here")
    return HubertConfig(
        hidden_size=settings.get("encoder_embed_dim", 768),
        num_hidden_layers=settings.get("encoder_layers", 12),
        num_attention_heads=settings.get("encoder_attention_heads", 12),
        intermediate_size=settings.get("encoder_ffn_embed_dim", 3072),
        hidden_act=str(settings.get("activation_fn", "gelu")),
        conv_dim=tuple(channels for channels, _, _ in convolutions),
        conv_kernel=tuple(kernel for _, kernel, _ in convolutions),
        conv_stride=tuple(stride for _, _, stride in convolutions),
        conv_bias=bool(settings.get("conv_bias", False)),
        feat_extract_norm=modes[mode],
        do_stable_layer_norm=bool(settings.get("layer_norm_first", False)),
        num_conv_pos_embeddings=settings.get("conv_pos", 128),
        num_conv_pos_embedding_groups=settings.get("conv_pos_groups", 16),
        attn_implementation="sdpa",
    )


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for name, weight in weights.items():
        for pattern, replacement in _NAMES:
            known, count = re.subn(pattern, replacement, name)
            if count:
                name = known
                break
        renamed[name] = weight
    return rename_weight_norm(renamed)
