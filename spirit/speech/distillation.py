"""The task that teaches a CTC-linear quantizer: the units of clean speech from worse recordings."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from spirit.speech.crops import UNKNOWN
from spirit.speech.quantizer import CTCLinear
from spirit.speech.robustness import without_repeats


def layer_sizes(channels: int, units: int) -> tuple[int, int, int, int]:
    """Channels and classes of the three layers, in even steps: 768, 702, 635, 501 in Spirit LM."""
    classes = units + 1
    between = channels - classes
    return (
        channels,
        classes + math.ceil(between * 3 / 4),
        classes + math.ceil(between / 2),
        classes,
    )


class Distillation(nn.Module):
    """CTC against the units of the clean recording, without repetitions (Gat et al. 2023).

    CTC is content with the order of the units, and learns to say each of them in a single frame,
    anywhere near its sound. A cross-entropy with the clean unit of each frame, which a new tempo
    moves in proportion, keeps them where they are heard: words are cut there, and a vocoder learns
    durations.
    """

    def __init__(self, quantizer: CTCLinear, timing: float = 0.3) -> None:
        """`timing` is the weight of that cross-entropy; 0 leaves CTC alone."""
        super().__init__()
        self.quantizer, self.timing = quantizer, timing
        self.blank = quantizer.classes - 1

    def forward(
        self,
        features: Float[Tensor, "batch frames channels"],
        counts: Int[Tensor, " batch"],
        targets: Int[Tensor, "batch longest"],
        lengths: Int[Tensor, " batch"],
        heard: Int[Tensor, "batch frames"],
    ) -> dict[str, Tensor]:
        """`ctc` in nats for each unit, `frame` in nats for each frame, `loss` of both; `blank`: the
        share of frames whose likeliest class it is.

        Frames beyond a row's count and targets beyond its length mean nothing; a row with too few
        frames for its units counts for nothing in `ctc`. `heard` is the clean unit of each frame,
        or -100.
        """
        scores = self.quantizer.layers(features).float().log_softmax(-1)
        nats = nn.functional.ctc_loss(
            scores.transpose(0, 1),
            targets,
            counts,
            lengths,
            blank=self.blank,
            reduction="sum",
            zero_infinity=True,
        )
        present = torch.arange(features.shape[1], device=counts.device) < counts[:, None]
        blanks = (scores.detach().argmax(-1) == self.blank) & present
        ctc = nats / lengths.sum().clamp(min=1)
        frame = nn.functional.nll_loss(scores.transpose(1, 2), heard, reduction="sum")
        frame = frame / (heard >= 0).sum().clamp(min=1)
        return {
            "loss": ctc + self.timing * frame,
            "ctc": ctc.detach(),
            "frame": frame.detach(),
            "blank": blanks.sum() / present.sum(),
        }

    def batch(
        self, features: Sequence[Float[Tensor, "_ channels"]], units: Sequence[np.ndarray]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What `forward` takes, of features of worse recordings and the units of the clean ones.

        A unit that stands for the blank (sound in which a quantizer heard none) is left out.
        """
        wanted = [without_repeats(row[row != self.blank]).astype(np.int64) for row in units]
        targets = nn.utils.rnn.pad_sequence(
            [torch.from_numpy(row) for row in wanted], batch_first=True
        )
        rows = [row.astype(np.int64) for row in units]
        # The frame of the clean recording that each frame of the other lies on.
        heard = [
            torch.from_numpy(row[((np.arange(count) + 0.5) * len(row) / count).astype(np.int64)])
            for row, count in zip(rows, map(len, features), strict=True)
        ]
        timed = nn.utils.rnn.pad_sequence(heard, batch_first=True, padding_value=UNKNOWN)
        timed[timed == self.blank] = UNKNOWN
        where = features[0].device
        return (
            nn.utils.rnn.pad_sequence(list(features), batch_first=True),
            torch.tensor([len(row) for row in features], device=where),
            targets.to(where),
            torch.tensor([len(row) for row in wanted], device=where),
            timed.to(where),
        )
