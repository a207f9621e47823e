"""Style tokens: how something is said, once a second."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from spirit.speech import part
from spirit.speech.f0 import HOP
from spirit.units import SAMPLE_RATE

F0_RATE = SAMPLE_RATE // HOP
F0_STATISTICS = 8
"""How many numbers describe the pitch of a second (`pool_f0`)."""
MIDDLE_F0 = 150.0
"""Log F0 is counted from here, so that the numbers are small."""
QUIET = 4.0
"""Squeezed features are divided by this: in the beginning F0 is heard before them."""
TOGETHER = 400
"""Seconds that are described to the network at once."""


@dataclass(frozen=True, kw_only=True)
class StyleFormat:
    """What style.json says: the names of the styles and the size of the network."""

    format: Literal[1] = 1
    names: tuple[str, ...]
    """The style of each unit."""
    channels: int
    """Size of the feature vectors that are pooled."""
    hidden: int = 64
    """Channels inside the network."""
    context: int = 2
    """Seconds before and after a second that have a say in its style."""
    narrow: int = 0
    """Channels that the pooled features have to pass before they meet F0: enough to tell whose
    pitch it is and how fast the sounds follow, too few to know recordings again. 0: they need not,
    as in older tokenizers."""

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"names must be a list of different styles, not {list(self.names)}")
        if min(self.channels, self.hidden) < 1 or min(self.context, self.narrow) < 0:
            raise ValueError(
                "channels and hidden must be at least 1, context and narrow at least 0"
            )

    @property
    def inputs(self) -> int:
        """How many numbers describe a second."""
        return 3 * self.channels + F0_STATISTICS

    def network(self, drop: float = 0.0) -> "StyleClassifier":
        """A network of this size, untrained; in training, `drop` of the features are left out."""
        return StyleClassifier(
            self.inputs, len(self.names), self.hidden, self.context, self.narrow, drop
        )


def pool_features(
    features: Float[Tensor, "frames channels"], rate: int = 25
) -> Float[Tensor, "seconds pooled"]:
    """Mean, spread and mean change from frame to frame of every second; the last may be partial.

    The change tells how fast somebody speaks: the faster, the sooner one sound follows another.
    """
    frames, channels = features.shape
    seconds = max(1, -(-frames // rate))
    padded = features.new_zeros(seconds * rate, channels)
    padded[:frames] = features
    padded = padded.view(seconds, rate, channels)
    present = (torch.arange(seconds * rate, device=features.device) < frames).view(seconds, rate, 1)
    count = present.sum(1).clamp(min=1)
    mean = padded.sum(1) / count
    spread = (((padded - mean[:, None]) * present).square().sum(1) / count).sqrt()
    moves = (padded[:, 1:] - padded[:, :-1]).abs() * present[:, 1:]
    change = moves.sum(1) / present[:, 1:].sum(1).clamp(min=1)
    return torch.cat([mean, spread, change], -1)


def pool_f0(f0: Float[np.ndarray, " frames"], seconds: int) -> Float[np.ndarray, "seconds 8"]:
    """The pitch of every second, as `F0_STATISTICS` numbers.

    Share of voiced frames; mean, spread, range and slope of log F0 over them; how often voicing
    changes; the mean against the whole recording's; share of the second that is there.
    """
    pooled = np.zeros((seconds, F0_STATISTICS), dtype=np.float32)
    voiced = f0 > 0
    log = np.log(np.where(voiced, f0, MIDDLE_F0) / MIDDLE_F0)
    whole = log[voiced].mean() if voiced.any() else 0.0
    for second in range(seconds):
        span = slice(second * F0_RATE, (second + 1) * F0_RATE)
        here, inside = log[span], voiced[span]
        pooled[second, 7] = len(here) / F0_RATE
        if not inside.any():
            continue
        heard = here[inside]
        low, high = np.quantile(heard, [0.1, 0.9])
        steps = np.abs(np.diff(here))[inside[1:] & inside[:-1]]
        pooled[second, :7] = (
            inside.mean(),
            heard.mean(),
            heard.std(),
            high - low,
            100 * steps.mean() if len(steps) else 0.0,
            10 * np.abs(np.diff(inside.astype(np.float32))).mean() if len(inside) > 1 else 0.0,
            heard.mean() - whole,
        )
    return pooled


class StyleClassifier(nn.Module):
    """Descriptions of seconds to scores of styles, by way of the seconds around them."""

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        inputs: int,
        styles: int,
        hidden: int,
        context: int,
        narrow: int = 0,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        self.features = inputs - F0_STATISTICS
        self.narrow = nn.Linear(self.features, narrow) if narrow else None
        self.forget = nn.Dropout(drop)
        self.enter = nn.Linear(narrow + F0_STATISTICS if narrow else inputs, hidden)
        self.around = nn.Conv1d(hidden, hidden, 2 * context + 1, padding=context)
        self.leave = nn.Linear(hidden, styles)
        self.drop = nn.Dropout(0.2)

    def normalize_by(self, pooled: Float[Tensor, "seconds inputs"]) -> None:
        """Learn the mean and spread of each input from data."""
        self.mean.copy_(pooled.mean(0))
        self.scale.copy_(1 / pooled.std(0).clamp(min=1e-3))

    def forward(
        self,
        pooled: Float[Tensor, "batch seconds inputs"],
        present: Bool[Tensor, "batch seconds"] | None = None,
    ) -> Float[Tensor, "batch seconds styles"]:
        """Scores of every style for every second; seconds not `present` are not looked at."""
        usual = (pooled - self.mean) * self.scale
        if self.narrow is None:
            described = self.drop(usual)
        else:
            features, f0 = usual.tensor_split([self.features], dim=-1)
            described = torch.cat([self.narrow(self.forget(features)) / QUIET, f0], dim=-1)
        hidden = self.drop(self.enter(described).relu())
        if present is not None:
            hidden = hidden * present[..., None]
        around = self.around(hidden.transpose(1, 2)).transpose(1, 2)
        scores: Tensor = self.leave(self.drop((hidden + around).relu()))
        return scores


class StyleTokenizer:
    """Pooled features and F0 of a recording to one style a second."""

    def __init__(self, form: StyleFormat, network: StyleClassifier) -> None:
        self.form = form
        self.network = network.eval()

    @property
    def names(self) -> Sequence[str]:
        """The name of each unit."""
        return self.form.names

    @torch.inference_mode()
    def tokens(
        self, pooled: Float[Tensor, "seconds pooled"], f0: Float[np.ndarray, " frames"]
    ) -> Int[np.ndarray, " seconds"]:
        """The style of every second: `pooled` is from `pool_features`, `f0` is at 200 Hz."""
        device = self.network.mean.device
        pitch = torch.from_numpy(pool_f0(f0, len(pooled)))
        styles = []
        for start in range(0, len(pooled), TOGETHER):  # memory stays flat
            stop = start + TOGETHER
            around = slice(max(0, start - self.form.context), stop + self.form.context)
            described = torch.cat([pooled[around].to(device), pitch[around].to(device)], -1)
            scores = self.network(described[None])[0][start - around.start :][:TOGETHER]
            styles.append(scores.argmax(-1).cpu().numpy())
        return np.concatenate(styles).astype(np.int32)

    @torch.inference_mode()
    def figures(
        self, seconds: Sequence[Float[np.ndarray, "_ inputs"]], labels: Sequence[int]
    ) -> dict[str, float]:
        """How often styles are recognized in described recordings with known styles.

        `accuracy_second` counts seconds, `accuracy_recording` recordings by the mean over their
        seconds, `recall_NAME` recordings of one style; `chance` is the share of the most frequent.
        """
        right, count = 0, 0
        hits: dict[int, list[bool]] = {}
        for rows, label in zip(seconds, labels, strict=True):
            described = torch.from_numpy(rows)[None].to(self.network.mean.device)
            scores = self.network(described)[0].log_softmax(-1)
            right += int((scores.argmax(-1) == label).sum())
            count += len(rows)
            hits.setdefault(label, []).append(int(scores.mean(0).argmax()) == label)
        clips = sum(map(sum, hits.values()))
        frequent = max((len(hit) for hit in hits.values()), default=0)
        return {
            "recordings": len(labels),
            "styles": len(self.names),
            "accuracy_second": right / max(1, count),
            "accuracy_recording": clips / max(1, len(labels)),
            "chance": frequent / max(1, len(labels)),
            **{f"recall_{self.names[k]}": sum(h) / len(h) for k, h in sorted(hits.items())},
        }

    def save(self, folder: Path) -> None:
        """Write style.json and style.safetensors."""
        part.save(folder, "style", self.form, self.network)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "StyleTokenizer":
        """Read what `save` wrote. Raises ValueError if a file is missing or does not fit."""
        form = part.read_form(folder, "style", StyleFormat)
        network = form.network()
        part.read_weights(folder, "style", network, device)
        return cls(form, network)
