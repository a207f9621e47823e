"""HuBERT: a wave to one feature vector per frame."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import HubertConfig, HubertModel

from spirit import commit
from spirit.speech.packed import packed
from spirit.units import SAMPLE_RATE

WEIGHTS, SHAPE = "hubert.safetensors", "hubert.json"


class Hubert(nn.Module):
    """The transformer of HuBERT (Hsu et al. 2021, section II) on our clock.

    Frame `i` is centred on samples `[hop * i, hop * (i + 1))`, and a wave of `n` samples has
    `max(1, n // hop)` frames. A clip's features depend on that clip alone: the convolutions are
    normalized per position, and attention does not see the padding of a batch.
    """

    def __init__(self, network: HubertModel, layer: int = 0) -> None:
        """`layer` is the one whose output `features` gives, counted from 1; 0 is the last."""
        super().__init__()
        shape = network.config
        if shape.feat_extract_norm != "layer":
            raise ValueError(
                f"a HuBERT with feat_extract_norm={shape.feat_extract_norm!r} normalizes over time "
                "and its units would change with padding; use one with feat_extract_norm='layer'"
            )
        if not 0 <= layer <= shape.num_hidden_layers:
            raise ValueError(f"HuBERT has layers 1 to {shape.num_hidden_layers}, not {layer}")
        self.network = network
        self.layer = layer or shape.num_hidden_layers
        self.channels: int = shape.hidden_size
        self.hop: int = math.prod(shape.conv_stride)
        self.reach = _reach(shape.conv_kernel, shape.conv_stride)
        if self.reach < self.hop:
            raise ValueError(
                f"the convolutions see {self.reach} samples of every {self.hop}; widen conv_kernel"
            )
        # The wave is data: its gradient would cost a pass through the widest convolution.
        network.feature_extractor._requires_grad = False

    @classmethod
    def new(
        cls,
        *,
        hidden: int,
        layers: int,
        heads: int,
        ffn: int,
        conv_dim: Sequence[int],
        conv_kernel: Sequence[int],
        conv_stride: Sequence[int],
        position_kernel: int = 16,
        position_groups: int = 16,
    ) -> "Hubert":
        """A new network; the product of `conv_stride` is the hop in samples.

        Weights are random, but a first convolution of 10 ms or more begins as a bank of filters on
        the mel scale: a network that has to find those by itself is not there after thousands of
        steps.
        """
        if not len(conv_dim) == len(conv_kernel) == len(conv_stride) > 0:
            raise ValueError("conv_dim, conv_kernel and conv_stride must be lists of one length")
        if hidden % heads or hidden % position_groups:
            raise ValueError(
                f"hidden={hidden} must be a multiple of heads={heads} and "
                f"position_groups={position_groups}"
            )
        shape = HubertConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=ffn,
            conv_dim=tuple(conv_dim),
            conv_kernel=tuple(conv_kernel),
            conv_stride=tuple(conv_stride),
            conv_bias=True,
            feat_extract_norm="layer",
            num_conv_pos_embeddings=position_kernel,
            num_conv_pos_embedding_groups=position_groups,
            # A few passes over a corpus do not overfit, and dropout is slow on a CPU.
            hidden_dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
            feat_proj_dropout=0.0,
            layerdrop=0.0,
            attn_implementation="sdpa",
        )
        network = HubertModel(shape)
        ears = network.feature_extractor.conv_layers[0].conv
        # Silence must not be the point where the norm that follows divides by nothing.
        nn.init.uniform_(ears.bias, -0.05, 0.05)
        if conv_kernel[0] >= SAMPLE_RATE // 100:
            with torch.no_grad():
                ears.weight.copy_(_tones(conv_dim[0], conv_kernel[0])[:, None])
        return cls(network)

    def frames(self, samples: int) -> int:
        """How many frames a wave of that many samples has."""
        return max(1, samples // self.hop)

    def pad(
        self, waves: Sequence[Float[np.ndarray, " _"]]
    ) -> tuple[Float[Tensor, "batch padded"], list[int]]:
        """Waves side by side with the margins that `forward` needs, and the frame count of each."""
        counts = [self.frames(len(wave)) for wave in waves]
        margin = self.reach - self.hop
        batch = np.zeros((len(waves), max(counts) * self.hop + margin), np.float32)
        for row, wave, count in zip(batch, waves, counts, strict=True):
            body = wave[: count * self.hop + margin - margin // 2]
            row[margin // 2 : margin // 2 + len(body)] = body
        return torch.from_numpy(batch), counts

    def widen(self, crops: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch padded"]:
        """Crops of whole frames with the margins that `forward` needs."""
        margin = self.reach - self.hop
        return nn.functional.pad(crops, (margin // 2, margin - margin // 2))

    def forward(
        self,
        padded: Float[Tensor, "batch padded"],
        counts: Sequence[int] | None = None,
        masked: Bool[Tensor, "batch frames"] | None = None,
        layer: int = 0,
    ) -> Float[Tensor, "batch frames channels"]:
        """The output of `layer` (0: the last); frames beyond a wave's count mean nothing.

        `padded` comes from `pad` or `widen`; without `counts` all waves are of full length. Frames
        in `masked` are hidden from the transformer.
        """
        frames = (padded.shape[1] - self.reach) // self.hop + 1
        present = None
        if counts is not None and min(counts) < frames:
            stop = torch.tensor(counts, device=padded.device) * self.hop + self.reach - self.hop
            present = torch.arange(padded.shape[1], device=padded.device) < stop[:, None]
        output = self.network(padded, present, masked, output_hidden_states=layer != 0)
        hidden: Tensor = output.hidden_states[layer] if layer else output.last_hidden_state
        return hidden

    @torch.inference_mode()
    def features(
        self, waves: Sequence[Float[np.ndarray, " _"]], layer: int | None = None
    ) -> list[Float[Tensor, "_ channels"]]:
        """The features of each 16 kHz wave, computed as one batch, float32 on this device.

        `layer` overrides the network's own choice.
        """
        if not waves:
            return []
        wanted, shape = layer or self.layer, self.network.config
        if wanted == shape.num_hidden_layers and not shape.do_stable_layer_norm:
            wanted = 0  # what comes out at the end; the layers on the way need not be kept
        padded, counts = self.pad(waves)
        where = next(self.parameters())
        if where.device.type == "cpu" and not wanted:
            margin = self.reach - self.hop
            rows = [
                row[: count * self.hop + margin] for row, count in zip(padded, counts, strict=True)
            ]
            return [row.float() for row in packed(self.network, rows, SAMPLE_RATE // self.hop)]
        # In the network's own precision, where it is.
        hidden = self(padded.to(where), counts, layer=wanted)
        return [row[:count].float() for row, count in zip(hidden, counts, strict=True)]

    def cut(self, layer: int) -> "Hubert":
        """A copy without the layers above `layer`, for those who only want its features."""
        shape = self.network.config
        if shape.do_stable_layer_norm:
            raise ValueError(
                "a HuBERT with do_stable_layer_norm=True cannot be cut: its last norm comes last"
            )
        if not 1 <= layer <= shape.num_hidden_layers:
            raise ValueError(f"HuBERT has layers 1 to {shape.num_hidden_layers}, not {layer}")
        network = HubertModel(HubertConfig(**{**_described(shape), "num_hidden_layers": layer}))
        weights = self.network.state_dict()
        network.load_state_dict({name: weights[name] for name in network.state_dict()})
        return Hubert(network).eval()

    def save(self, folder: Path) -> None:
        """Write `hubert.safetensors` and then `hubert.json` into `folder`."""
        save_network(folder, self.network, {"layer": self.layer})

    @classmethod
    def load(cls, folder: Path) -> "Hubert":
        """Read what `save` wrote, ready for `features`; ValueError names the folder and why."""
        for name in (SHAPE, WEIGHTS):
            if not (folder / name).is_file():
                raise ValueError(f"{folder} holds no {name}; make it with `spirit fit hubert`")
        try:
            entry = json.loads((folder / SHAPE).read_text(encoding="utf-8"))
            network = HubertModel(HubertConfig(**entry["network"]))
            network.load_state_dict(load_file(folder / WEIGHTS))
            hubert = cls(network, entry["layer"])
        except Exception as error:  # a foreign file can fail in each of four libraries
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{folder}: {SHAPE} and {WEIGHTS} cannot be used ({reason}); fit it again"
            ) from None
        return hubert.eval()


def save_network(folder: Path, network: nn.Module, about: Mapping[str, Any]) -> None:
    """Write a network of transformers as `hubert.safetensors` and then `hubert.json`, which says
    what is told `about` it and has its settings."""
    weights = {
        name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()
    }
    with commit.file(folder / WEIGHTS) as partial:
        save_file(weights, partial, metadata={"format": "pt"})
    commit.json_file(folder / SHAPE, {**about, "network": _described(network.config)})


def _described(shape: Any) -> dict[str, Any]:
    """The settings of a network as JSON holds them."""
    settings: dict[str, Any] = shape.to_diff_dict()
    for volatile in ("transformers_version", "dtype", "architectures"):
        settings.pop(volatile, None)
    return settings


def _tones(channels: int, width: int) -> Float[Tensor, "channels width"]:
    """Short tones from 60 Hz to 7.6 kHz, evenly spaced in mel, in four phases each.

    After a rectifier four phases add up to a magnitude, whatever the phase of the sound. A tone is
    as short as the distance to its neighbors allows, and louder the higher it is, as speech is not.
    """
    count = -(-channels // 4)
    low, high = (2_595 * math.log10(1 + hertz / 700) for hertz in (60, 7_600))
    mel = torch.linspace(low, high, count + 2)
    edges = 700 * (10 ** (mel / 2_595) - 1)
    hertz, band = edges[1:-1, None], (edges[2:] - edges[:-2])[:, None] / 2
    time = (torch.arange(width) - (width - 1) / 2) / SAMPLE_RATE
    swell = torch.hann_window(width + 2, periodic=False)[1:-1] * (-((time * band) ** 2) / 2).exp()
    phase = torch.arange(4)[:, None, None] * math.pi / 2
    tones = (swell * torch.cos(2 * math.pi * hertz * time + phase)).transpose(0, 1).flatten(0, 1)
    tones = tones[:channels] / tones[:channels].norm(dim=1, keepdim=True)
    loudness: Tensor = (hertz / hertz.mean()).sqrt().repeat_interleave(4, 0)[:channels]
    ears: Tensor = tones * loudness * 10
    return ears


def _reach(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """How many samples one frame of a stack of convolutions sees."""
    reach, hop = 1, 1
    for kernel, stride in zip(kernels, strides, strict=True):
        reach += (kernel - 1) * hop
        hop *= stride
    return reach
