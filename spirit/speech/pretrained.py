"""Pre-trained HuBERT, mHuBERT, WavLM and wav2vec 2.0, as their authors left them."""

import copy
import json
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrize
from transformers import (
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
)

from spirit.speech.hubert import SHAPE, WEIGHTS, Hubert, save_network
from spirit.speech.packed import packable, packed
from spirit.units import SAMPLE_RATE

FAMILIES: dict[str, tuple[Any, Any]] = {
    "hubert": (HubertConfig, HubertModel),
    "wavlm": (WavLMConfig, WavLMModel),
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model),
}
"""Settings and network by the name that a config.json gives."""


class Pretrained(nn.Module):
    """A wave to the features of one layer, by a network of the wav2vec 2.0 family.

    A wave of `n` samples has `(n - reach) // hop + 1` frames; with `padded` it has margins of zeros
    and `max(1, n // hop)` frames, frame `i` centred on samples `[hop * i, hop * (i + 1))`, as
    `Hubert` has. Where the first convolution is normalized over time (GroupNorm, as in every base
    model), that is done over each clip's own samples, and attention does not see the padding of a
    batch: features do not depend on what a clip is batched with.
    """

    def __init__(
        self,
        network: Any,
        layer: int = 0,
        *,
        normalize: float | None = None,
        padded: bool = False,
    ) -> None:
        """`network` is transformers' HubertModel, WavLMModel or Wav2Vec2Model; the layers above
        `layer` (counted from 1) are taken off it. With 0 it gives what the whole network does,
        which in large models has one more norm behind the last layer.

        With `normalize` each wave is brought to mean 0 and variance 1 first; the number is what is
        added to the variance. Raises ValueError for a layer that is not there.
        """
        super().__init__()
        shape = network.config
        layers = len(network.encoder.layers)
        if not 0 <= layer <= layers:
            raise ValueError(f"this network has layers 1 to {layers}, not {layer}")
        if layer:
            network.encoder.layers = network.encoder.layers[:layer]
            shape.num_hidden_layers = layer
            if shape.do_stable_layer_norm:
                # The norm behind the layers belongs to the network as a whole.
                network.encoder.layer_norm = nn.Identity()
        _fold(network.encoder.pos_conv_embed)
        self.network = network
        self.whole, self.layer = not layer, layer or layers
        self.normalize, self.padded = normalize, padded
        self.packs = True
        """Whether a CPU may take sums in another order than transformers does, which is faster."""
        self.channels: int = shape.hidden_size
        self._convolutions = list(zip(shape.conv_kernel, shape.conv_stride, strict=True))
        self.hop: int = math.prod(shape.conv_stride)
        self.reach = 1
        for kernel, stride in reversed(self._convolutions):
            self.reach = (self.reach - 1) * stride + kernel
        self.eval()

    def cut(self, layer: int) -> "Pretrained":
        """A copy without the layers above `layer` (counted from 1)."""
        network = copy.deepcopy(self.network)
        return Pretrained(network, layer, normalize=self.normalize, padded=self.padded)

    def save(self, folder: Path) -> None:
        """Write `hubert.safetensors` and then `hubert.json` into `folder`, as `Hubert` does."""
        about = {
            "family": self.network.config.model_type,
            "layer": self.layer,
            "whole": self.whole,
            "normalize": self.normalize,
            "padded": self.padded,
        }
        save_network(folder, self.network, about)

    @classmethod
    def load(cls, folder: Path) -> "Pretrained":
        """Read what `save` wrote; ValueError names the folder and why."""
        try:
            entry = json.loads((folder / SHAPE).read_text(encoding="utf-8"))
            form, network_class = FAMILIES[entry["family"]]
            encoder = cls(
                network_class(form(**entry["network"])),
                0 if entry["whole"] else entry["layer"],
                normalize=entry["normalize"],
                padded=entry["padded"],
            )
            encoder.network.load_state_dict(load_file(folder / WEIGHTS))
        except Exception as error:  # a foreign file can fail in each of four libraries
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{folder}: {SHAPE} and {WEIGHTS} cannot be used ({reason}); assemble it again"
            ) from None
        return encoder

    def frames(self, samples: int) -> int:
        """How many frames a wave of that many samples has."""
        if self.padded:
            return max(1, samples // self.hop)
        return max(0, (samples - self.reach) // self.hop + 1)

    @torch.inference_mode()
    def features(
        self, waves: Sequence[Float[np.ndarray, " _"]]
    ) -> list[Float[Tensor, "_ channels"]]:
        """The features of each 16 kHz wave, computed as one batch, float32 on this device.

        Raises ValueError for a wave of fewer samples than one frame sees, unless it is `padded`.
        """
        if not waves:
            return []
        if not self.padded and (shortest := min(map(len, waves))) < self.reach:
            raise ValueError(
                f"a wave of {shortest} samples is too short for this network, whose first frame "
                f"sees {self.reach}; leave it out or add silence"
            )
        ready = [self._ready(wave) for wave in waves]
        where = next(self.parameters())
        if where.device.type == "cpu" and self.packs and packable(self.network):
            return [row.float() for row in packed(self.network, ready, SAMPLE_RATE // self.hop)]
        batch = nn.utils.rnn.pad_sequence(ready, batch_first=True)
        # In the network's own precision, where it is.
        hidden = self(batch.to(where), [len(wave) for wave in ready])
        counts = [self.frames(len(wave)) for wave in waves]
        return [row[:count].float() for row, count in zip(hidden, counts, strict=True)]

    def forward(
        self, batch: Float[Tensor, "batch samples"], lengths: Sequence[int]
    ) -> Float[Tensor, "batch frames channels"]:
        """The layer's output for waves side by side; frames beyond a wave's length mean nothing."""
        hidden = batch[:, None]
        counts = list(lengths)
        layers = self.network.feature_extractor.conv_layers
        for layer, (kernel, stride) in zip(layers, self._convolutions, strict=True):
            counts = [(count - kernel) // stride + 1 for count in counts]
            hidden = layer.activation(_normalized(layer, layer.conv(hidden), counts))
        projected = self.network.feature_projection(hidden.transpose(1, 2))
        if isinstance(projected, tuple):  # wav2vec 2.0 and WavLM give the unprojected ones too
            projected = projected[0]
        present = None
        if min(counts) < max(counts):
            stop = torch.tensor(counts, device=batch.device)
            present = torch.arange(projected.shape[1], device=batch.device) < stop[:, None]
        with warnings.catch_warnings():
            # WavLM gives torch two masks of different types, which nobody who calls this can mend.
            warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
            output = self.network.encoder(projected, attention_mask=present)
        features: Tensor = output.last_hidden_state
        return features

    def _ready(self, wave: Float[np.ndarray, " samples"]) -> Float[Tensor, " padded"]:
        samples = torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))
        if self.normalize is not None and len(samples):
            variance = samples.var(unbiased=False)
            samples = (samples - samples.mean()) / (variance + self.normalize).sqrt()
        if not self.padded:
            return samples
        margin = self.reach - self.hop
        whole = self.frames(len(wave)) * self.hop + margin
        body = samples[: whole - margin // 2]
        return nn.functional.pad(body, (margin // 2, whole - margin // 2 - len(body)))


Encoder = TypeVar("Encoder", bound=Hubert | Pretrained)


def load_network(folder: Path) -> Hubert | Pretrained:
    """Read what either of them saved. Raises ValueError for a folder that holds neither."""
    try:
        family = json.loads((folder / SHAPE).read_text(encoding="utf-8")).get("family")
    except (OSError, ValueError, AttributeError):
        family = None
    return Pretrained.load(folder) if family else Hubert.load(folder)


def in_bf16(encoder: Encoder) -> Encoder:
    """A copy that computes in bfloat16; its features are rounded to that and given as float32."""
    half = copy.deepcopy(encoder)
    _fold(half.network.encoder.pos_conv_embed)  # the product before the rounding
    half.eval().to(torch.bfloat16)
    return half


def _fold(embed: Any) -> None:
    """Replace the convolution of positions by one whose weights are what weight norm stands for.

    That saves the product in every pass, whose last bits depend on the number of threads; frames
    that lie between two units would change sides with it.
    """
    conv = embed.conv
    if not parametrize.is_parametrized(conv, "weight"):
        return
    norm = conv.parametrizations.weight
    size, direction = norm.original0.detach(), norm.original1.detach()
    dims = [dim for dim in range(3) if size.shape[dim] == 1]
    weight = direction * (size / torch.linalg.vector_norm(direction, dim=dims, keepdim=True))
    # A new one: taking the norm off would take it off every copy of the network.
    plain: Any = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv1d,
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size[0],
        padding=conv.padding[0],
        groups=conv.groups,
        device=weight.device,
    )
    plain.weight, plain.bias = nn.Parameter(weight), conv.bias
    embed.conv = plain


def _normalized(
    layer: Any, hidden: Float[Tensor, "batch channels frames"], counts: Sequence[int]
) -> Float[Tensor, "batch channels frames"]:
    """A convolution's norm, if it has one; one over time runs over each clip's own frames."""
    norm = getattr(layer, "layer_norm", None)
    if norm is None:
        return hidden
    if not isinstance(norm, nn.GroupNorm):
        over_channels: Tensor = norm(hidden.transpose(1, 2)).transpose(1, 2)
        return over_channels
    if min(counts) == hidden.shape[2]:
        together: Tensor = norm(hidden)
        return together
    rows = torch.zeros_like(hidden)
    for row, clip, count in zip(rows, hidden, counts, strict=True):
        row[:, :count] = norm(clip[None, :, :count])[0]
    return rows
