"""The F0 quantizer of the released Spirit LM: a VQ-VAE as in Jukebox on contours of FCPE.

Dhariwal et al. 2020 (Jukebox), Polyak et al. 2021 (F0 tokens), Nguyen et al. 2025 (Spirit LM).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from spirit.formats.checkpoints import fill, read_stored
from spirit.speech.f0 import HOP
from spirit.speech.fcpe import Fcpe

FEATURES = {
    # the name in config.yaml: (a line through unvoiced frames, the mean taken off)
    "f0_interp,vuv": (True, False),
    "f0,vuv": (False, False),
    "norm_f0_interp,vuv": (True, True),
    "norm_f0,vuv": (False, True),
}


class _Residual(nn.Module):
    def __init__(self, width: int, inner: int, dilation: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.ReLU(),
            nn.Conv1d(width, inner, 3, padding=dilation, dilation=dilation),
            nn.ReLU(),
            nn.Conv1d(inner, width, 1),
        )

    def forward(
        self, hidden: Float[Tensor, "batch width frames"]
    ) -> Float[Tensor, "batch width frames"]:
        mixed: Tensor = hidden + self.model(hidden)
        return mixed


class _Block(nn.Module):
    """Residual blocks under the name that the file gives them."""

    def __init__(self, width: int, inner: int, depth: int, growth: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(_Residual(width, inner, growth**i) for i in range(depth)))

    def forward(
        self, hidden: Float[Tensor, "batch width frames"]
    ) -> Float[Tensor, "batch width frames"]:
        mixed: Tensor = self.model(hidden)
        return mixed


class F0Encoder(nn.Module):
    """The half of the VQ-VAE that tokens need: contours to codes."""

    codes: Tensor

    def __init__(
        self,
        *,
        inputs: int,
        width: int,
        depth: int,
        downs: int,
        stride: int,
        inner: int,
        growth: int,
        channels: int,
        codes: int,
    ) -> None:
        super().__init__()
        self.stride: int = stride**downs
        steps: list[nn.Module] = []
        for i in range(downs):
            narrow = nn.Conv1d(
                width if i else inputs, width, stride * 2, stride=stride, padding=stride // 2
            )
            steps.append(nn.Sequential(narrow, _Block(width, inner, depth, growth)))
        self.model = nn.Sequential(*steps, nn.Conv1d(width, channels, 3, padding=1))
        self.register_buffer("codes", torch.zeros(codes, channels))

    def forward(self, contour: Float[Tensor, "batch inputs frames"]) -> Int[Tensor, "batch tokens"]:
        """The nearest code, by Euclidean distance, for every `stride` frames; a rest is dropped."""
        hidden = self.model(contour).transpose(1, 2)
        distance = (
            hidden.square().sum(-1, keepdim=True)
            - 2 * hidden @ self.codes.T
            + self.codes.square().sum(-1)
        )
        nearest: Tensor = distance.argmin(-1)
        return nearest


class ReleasedPitch:
    """16 kHz waves to pitch tokens as the release makes them: F0 by FCPE at 200 Hz, its mean over
    the voiced frames of a chunk taken off (in Hz), 16 frames to a token.

    Where no frame is voiced the contour is 0 and has tokens like any other; the release raises
    IndexError there.
    """

    def __init__(
        self, network: F0Encoder, hear: Fcpe, *, interpolated: bool = True, centered: bool = True
    ) -> None:
        self.network = network.eval()
        self.hear = hear
        self.interpolated, self.centered = interpolated, centered

    @property
    def codes(self) -> int:
        """Number of codes."""
        return len(self.network.codes)

    @property
    def hop(self) -> int:
        """Samples per token."""
        return HOP * self.network.stride

    def contour(
        self, f0: Float[Tensor, " frames"], voiced: Bool[Tensor, " frames"]
    ) -> Float[Tensor, "2 frames"]:
        """The network's input: `f0` in Hz, with a line through its unvoiced frames, and voicing."""
        flag = voiced.to(f0.dtype)
        line = f0 if self.interpolated else f0 * flag
        if self.centered and bool(voiced.any()):
            line = torch.where(line != 0, line - f0[voiced].mean(), line)
        return torch.stack([line, flag])

    @torch.inference_mode()
    def tokens(self, wave: Float[np.ndarray, " samples"]) -> Int[np.ndarray, " tokens"]:
        """One code for every 1,280 samples of a chunk, rounded as the release does."""
        f0, voiced = self.hear.line(torch.from_numpy(wave))
        codes: np.ndarray = self.network(self.contour(f0, voiced)[None])[0].cpu().numpy()
        return codes.astype(np.int32)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "ReleasedPitch":
        """Read `config.yaml` and `model.pt` of a folder, as they are.

        Raises ValueError if a file is missing, damaged, or of another network than the release's.
        """
        path = folder / "config.yaml"
        settings = _read_yaml(path)
        try:
            network, interpolated, centered = _build(settings)
        except KeyError as error:
            raise ValueError(f"{path} lacks {error}; download it again") from None
        except (ValueError, TypeError, IndexError, RuntimeError) as error:
            raise ValueError(f"{path}: {str(error).splitlines()[0]}; download it again") from None
        content = read_stored(folder / "model.pt")
        weights = content.get("model", content)
        inside = "encoder.level_blocks.0."
        found = {
            name.removeprefix(inside): weight
            for name, weight in weights.items()
            if name.startswith(inside)
        }
        if "vq.level_blocks.0.k" in weights:
            found["codes"] = weights["vq.level_blocks.0.k"]
        fill(network, found, folder / "model.pt")
        return cls(network.to(device), Fcpe(device), interpolated=interpolated, centered=centered)


def _read_yaml(path: Path) -> Mapping[str, Any]:
    import yaml  # with transformers

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; check that the download is complete") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(f"{path} cannot be read as YAML ({reason}); download it again") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} must hold settings by name; download it again")
    return settings


def _build(settings: Mapping[str, Any]) -> tuple[F0Encoder, bool, bool]:
    features = "".join(str(settings["features"]).split())
    if features not in FEATURES:
        raise ValueError(f"features {features!r} are not one of {', '.join(FEATURES)}")
    interpolated, centered = FEATURES[features]
    encoder, vq = settings["encoder_params"], settings["vq_params"]
    if (encoder["levels"], vq["levels"]) != (1, 1) or encoder["input_emb_width"] != 2:
        raise ValueError("only a network of one level and two inputs can be read")
    network = F0Encoder(
        inputs=2,
        width=encoder["width"],
        depth=encoder["depth"],
        downs=encoder["downs_t"][0],
        stride=encoder["strides_t"][0],
        inner=int(encoder["m_conv"] * encoder["width"]),
        growth=encoder["dilation_growth_rate"],
        channels=encoder["output_emb_width"],
        codes=vq["l_bins"],
    )
    return network, interpolated, centered or bool(settings.get("speaker_norm", False))
