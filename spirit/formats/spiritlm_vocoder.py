"""The vocoders of the released Spirit LM: HiFi-GAN on units, with a duration predictor.

Kong et al. 2020 (HiFi-GAN), Polyak et al. 2021 (units, F0 and speaker), Lee et al. 2022 (joint
durations), Nguyen et al. 2025 (Spirit LM).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from spirit.formats.checkpoints import fill, read_json, read_stored, rename_weight_norm
from spirit.units import Kind

SLOPE, LAST_SLOPE = 0.1, 0.01
"""Of the leaky ReLUs; the last one has PyTorch's default."""


def _conv(channels_in: int, channels: int, kernel: int, dilation: int = 1) -> nn.Module:
    span = dilation * (kernel - 1) // 2
    normed: nn.Module = weight_norm(
        nn.Conv1d(channels_in, channels, kernel, padding=span, dilation=dilation)
    )
    return normed


class _Residual(nn.Module):
    def __init__(self, channels: int, kernel: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(_conv(channels, channels, kernel, d) for d in dilations)
        self.convs2 = nn.ModuleList(_conv(channels, channels, kernel) for _ in dilations)

    def forward(
        self, hidden: Float[Tensor, "batch channels samples"]
    ) -> Float[Tensor, "batch channels samples"]:
        for wide, narrow in zip(self.convs1, self.convs2, strict=True):
            mixed = wide(functional.leaky_relu(hidden, SLOPE))
            hidden = hidden + narrow(functional.leaky_relu(mixed, SLOPE))
        return hidden


class _Durations(nn.Module):
    def __init__(self, channels: int, hidden: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv1d(channels, hidden, kernel, padding=(kernel - 1) // 2))
        self.ln1 = nn.LayerNorm(hidden)
        # The release pads the second convolution by one, whatever its kernel.
        self.conv2 = nn.Sequential(nn.Conv1d(hidden, hidden, kernel, padding=1))
        self.ln2 = nn.LayerNorm(hidden)
        self.proj = nn.Linear(hidden, 1)

    def forward(self, codes: Float[Tensor, "units channels"]) -> Int[Tensor, " units"]:
        """How many frames each unit lasts, at least one."""
        hidden = self.conv1(codes.T[None]).relu()
        hidden = self.ln1(hidden.transpose(1, 2)).transpose(1, 2)
        hidden = self.ln2(self.conv2(hidden).relu().transpose(1, 2))
        log = self.proj(hidden)[0, :, 0]
        frames: Tensor = (log.exp() - 1).round().long().clamp(min=1)
        return frames


class _Generator(nn.Module):
    """The network, under the names that its file has."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        super().__init__()
        width = settings["upsample_initial_channel"]
        rates, kernels = settings["upsample_rates"], settings["upsample_kernel_sizes"]
        shapes = list(
            zip(
                settings["resblock_kernel_sizes"],
                settings["resblock_dilation_sizes"],
                strict=True,
            )
        )
        if str(settings.get("resblock", "1")) != "1":
            raise ValueError("its residual blocks are not of the first kind of HiFi-GAN")
        self.conv_pre = _conv(settings["model_in_dim"], width, 7)
        self.ups = nn.ModuleList()
        self.resblocks = nn.ModuleList()
        for rate, kernel in zip(rates, kernels, strict=True):
            up = nn.ConvTranspose1d(
                width, width // 2, kernel, stride=rate, padding=(kernel - rate) // 2
            )
            self.ups.append(weight_norm(up))
            width //= 2
            for size, dilations in shapes:
                self.resblocks.append(_Residual(width, size, dilations))
        self.conv_post = _conv(width, 1, 7)
        size = settings["embedding_dim"]
        self.dict = nn.Embedding(settings["num_embeddings"], size)
        tables = {"num_f0_tokens": "f0_dict", "num_style_tokens": "style_dict"}
        for count, name in tables.items():
            if settings.get(count):
                self.add_module(name, nn.Embedding(settings[count], size))
        if settings.get("multispkr"):
            self.spkr = nn.Embedding(settings.get("num_speakers", 200), size)
        if settings.get("multistyle"):
            self.style = nn.Embedding(settings.get("num_styles", 100), size)
        if told := settings.get("dur_predictor_params"):
            self.dur_predictor = _Durations(
                told["encoder_embed_dim"], told["var_pred_hidden_dim"], told["var_pred_kernel_size"]
            )

    def forward(self, frames: Float[Tensor, "channels frames"]) -> Float[Tensor, " samples"]:
        hidden = self.conv_pre(frames[None])
        each = len(self.resblocks) // len(self.ups)
        for i, up in enumerate(self.ups):
            hidden = up(functional.leaky_relu(hidden, SLOPE))
            blocks = list(self.resblocks)[i * each : (i + 1) * each]
            hidden = torch.stack([block(hidden) for block in blocks]).sum(0) / each
        wave: Tensor = self.conv_post(functional.leaky_relu(hidden, LAST_SLOPE)).tanh()
        return wave[0, 0]


class ReleasedVocoder:
    """Units of the released tokenizer to 16 kHz waves, 640 samples a frame.

    Both released kinds are read: base takes a speaker and a style for the whole utterance,
    expressive a speaker, and pitch and style with the units.
    """

    def __init__(self, network: _Generator, hop: int, speakers: Sequence[str]) -> None:
        self.network = network.eval()
        self.hop = hop
        self.speakers = tuple(speakers)

    @property
    def expressive(self) -> bool:
        """Whether it takes pitch and style tokens."""
        return hasattr(self.network, "f0_dict")

    @torch.inference_mode()
    def speak(
        self,
        units: Mapping[Kind, Sequence[int]],
        *,
        speaker: int = 2,
        style: int = 8,
        predict_durations: bool = False,
    ) -> Float[np.ndarray, " samples"]:
        """The wave of HuBERT units, one a frame, or of deduplicated ones whose durations it
        predicts.

        Pitch and style tokens may be one a unit, or at their own rates (2 and 25 frames each; the
        last is held to the end). An expressive vocoder without pitch or style takes the first code
        and the release's most common style, where the release raises KeyError. Raises ValueError
        for a unit, speaker or style that it does not know.
        """
        codes = self._embedded("dict", units[Kind.HUBERT])
        count = len(codes)
        parts = [codes]
        if self.expressive:
            pitch = _held(units.get(Kind.PITCH) or [0], count, 2)
            styles = _held(units.get(Kind.STYLE) or [71], count, 25)
            parts += [self._embedded("f0_dict", pitch), self._embedded("style_dict", styles)]
        if hasattr(self.network, "spkr"):
            parts.append(self._embedded("spkr", [speaker] * count))
        if not self.expressive and hasattr(self.network, "style"):
            parts.append(self._embedded("style", [style] * count))
        if not count:
            return np.zeros(0, np.float32)
        frames = torch.cat(parts, 1)
        if predict_durations:
            if not hasattr(self.network, "dur_predictor"):
                raise ValueError("this vocoder predicts no durations; give one unit a frame")
            frames = frames.repeat_interleave(self.network.dur_predictor(codes), 0)
        wave: np.ndarray = self.network(frames.T).float().cpu().numpy()
        return wave

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "ReleasedVocoder":
        """Read `config.json`, `generator.pt` and `speakers.txt` of a folder, as they are.

        Raises ValueError if a file is missing or damaged, or they do not fit each other.
        """
        settings = read_json(folder / "config.json")
        try:
            network = _Generator(settings)
            hop = int(np.prod(settings["upsample_rates"]))
        except KeyError as error:
            raise ValueError(f"{folder / 'config.json'} lacks {error}; download it again") from None
        except (ValueError, TypeError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"{folder / 'config.json'} is no vocoder ({reason})") from None
        content = read_stored(folder / "generator.pt")
        weights = rename_weight_norm(content.get("generator", content))
        fill(network, weights, folder / "generator.pt")
        for module in network.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")
        names = folder / "speakers.txt"
        speakers = names.read_text(encoding="utf-8").split() if names.is_file() else []
        return cls(network.to(device), hop, speakers)

    def _embedded(self, name: str, numbers: Sequence[int]) -> Float[Tensor, "units channels"]:
        table = cast(nn.Embedding, getattr(self.network, name))
        index = torch.tensor(list(numbers), dtype=torch.long, device=table.weight.device)
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < table.num_embeddings:
            what = {"dict": "unit", "f0_dict": "pitch", "style_dict": "style", "spkr": "speaker"}
            wrong = next(n for n in numbers if not 0 <= n < table.num_embeddings)
            raise ValueError(
                f"{what.get(name, name)} {wrong}: this vocoder knows 0 to "
                f"{table.num_embeddings - 1}"
            )
        embedded: Tensor = table(index)
        return embedded


def _held(tokens: Sequence[int], count: int, frames: int) -> Sequence[int]:
    """Tokens at a rate of their own as one a frame; the last is held to the end."""
    if len(tokens) == count:
        return tokens
    spread = [token for token in tokens for _ in range(frames)]
    return (spread + [spread[-1]] * max(0, count - len(spread)))[:count]
