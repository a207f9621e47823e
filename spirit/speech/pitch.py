"""Pitch tokens: the F0 contour of a voice as one of 64 codes, 12.5 times a second."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from spirit.speech import part
from spirit.speech.f0 import HOP, Autocorrelation, F0Extractor
from spirit.speech.f0_others import OneByOne
from spirit.speech.fcpe import Fcpe
from spirit.speech.vq import PitchVQ
from spirit.units import SAMPLE_RATE

CHUNK = 20_000
"""F0 frames (100 s) that are heard and normalized together, as in the release."""
TOGETHER = 160 * SAMPLE_RATE
"""Samples, padding included, whose F0 is heard in one batch."""
TAIL = 2_000
"""A last piece of fewer F0 frames (10 s) belongs to the chunk before it: its own mean would mean
little."""


@dataclass(frozen=True, kw_only=True)
class PitchFormat:
    """What pitch.json says: how a contour becomes the network's input, and the size of the
    network."""

    format: Literal[1] = 1
    extractor: Literal["autocorrelation", "fcpe", "pyin", "harvest", "praat"] = "autocorrelation"
    """Who hears F0: our own autocorrelation, FCPE as in the release, or pYIN by librosa, Harvest by
    pyworld, Praat's autocorrelation (each one wave at a time on the CPU)."""
    scale: Literal["log", "hz"] = "log"
    """Contours are natural logarithms of F0, or F0 in Hz as in the release."""
    centered: bool = True
    """Whether the mean over a chunk's voiced frames is taken off."""
    interpolated: bool = True
    """Whether unvoiced frames carry a line between their voiced neighbours, or 0."""
    gain: float = 4.0
    """What the contour is multiplied with, to have about the spread of the voicing flag."""
    width: int = 32
    """Channels inside the network."""
    depth: int = 4
    """Residual blocks per halving of the rate."""
    halvings: int = 4
    """How often the rate is halved: 200 Hz / 2^4 = 12.5 Hz."""
    growth: int = 3
    """Growth of the dilation from one residual block to the next."""
    channels: int = 128
    """Size of a code vector."""
    codes: int = 64
    """Number of codes."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "halvings", "growth", "channels", "codes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.gain <= 0:
            raise ValueError(f"gain must be above 0, not {self.gain}")

    @property
    def hop(self) -> int:
        """Samples per pitch token."""
        return int(HOP * 2**self.halvings)

    def hear(self, device: torch.device | str) -> F0Extractor:
        """The F0 extractor that is named here."""
        if self.extractor == "autocorrelation":
            return Autocorrelation(device=device)
        if self.extractor == "fcpe":
            return Fcpe(device=device)
        return OneByOne(self.extractor, device=device)

    def network(self) -> PitchVQ:
        """A network of this size, untrained."""
        sizes = ("width", "depth", "halvings", "growth", "channels", "codes")
        return PitchVQ(**{name: getattr(self, name) for name in sizes})

    def contour(
        self, f0: Float[np.ndarray, " frames"], length: int
    ) -> Float[np.ndarray, "2 length"]:
        """The network's input: normalized contour and voicing flag of one chunk, cut or padded to
        `length`.

        Without any voiced frame the contour is 0 throughout.
        """
        voiced = f0 > 0
        line = np.zeros(len(f0), dtype=np.float64)
        if voiced.any():
            heard = np.log(f0[voiced]) if self.scale == "log" else f0[voiced].astype(np.float64)
            heard = (heard - heard.mean() * self.centered) * self.gain
            line[voiced] = heard
            if self.interpolated:
                line = np.interp(np.arange(len(f0)), np.flatnonzero(voiced), heard)
        missing = max(0, length - len(f0))
        edge = line[-1] if self.interpolated and len(line) else 0.0
        return np.stack(
            [
                np.pad(line, (0, missing), constant_values=edge)[:length],
                np.pad(voiced.astype(np.float64), (0, missing))[:length],
            ]
        ).astype(np.float32)


def chunks(frames: int) -> list[tuple[int, int]]:
    """Where a recording of `frames` F0 frames is cut: every 100 s from its beginning."""
    starts = list(range(0, max(1, frames), CHUNK))
    if len(starts) > 1 and frames - starts[-1] < TAIL:
        starts.pop()
    return list(zip(starts, [*starts[1:], frames], strict=True))


class PitchTokenizer:
    """Waves to F0 to pitch codes.

    A recording is cut every 100 s (`chunks`), and each chunk is heard, centered and encoded alone:
    memory is flat, and the result depends on nothing but the recording. Silence and the shortest
    sounds have codes.
    """

    def __init__(self, form: PitchFormat, network: PitchVQ, hear: F0Extractor) -> None:
        self.form = form
        self.network = network.eval()
        self.hear = hear

    @property
    def codes(self) -> int:
        """Number of codes."""
        return self.form.codes

    def f0(self, waves: Sequence[Float[Tensor, " _"]]) -> list[Float[np.ndarray, " _"]]:
        """F0 of 16 kHz waves in Hz at 200 Hz, 0 where unvoiced."""
        pieces: list[tuple[int, Tensor, int]] = []  # whose, what, how many frames are kept
        for i, wave in enumerate(waves):
            frames = len(wave) // HOP
            for start, stop in chunks(frames):
                end = len(wave) if stop == frames else stop * HOP
                pieces.append((i, wave[start * HOP : end], stop - start + (stop == frames)))
        heard: dict[int, np.ndarray] = {}
        order = sorted(range(len(pieces)), key=lambda k: -len(pieces[k][1]))
        while order:  # the longest first, as many together as are good for memory
            count = max(1, TOGETHER // max(1, len(pieces[order[0]][1])))
            batch, order = order[:count], order[count:]
            contours = self.hear.batch([pieces[k][1] for k in batch])
            heard |= {
                k: f0[: pieces[k][2]].cpu().numpy() for k, f0 in zip(batch, contours, strict=True)
            }
        parts: list[list[np.ndarray]] = [[] for _ in waves]
        for k, (i, _, _) in enumerate(pieces):
            parts[i].append(heard[k])
        return [np.concatenate(part) for part in parts]

    @torch.inference_mode()
    def tokens(self, f0: Float[np.ndarray, " frames"], count: int) -> Int[np.ndarray, " tokens"]:
        """`count` codes of a contour of 200 Hz."""
        device = self.network.codebook.vectors.device
        stride = self.network.stride
        spans = chunks(len(f0) - 1)
        codes = []
        for start, stop in spans:
            last = stop == spans[-1][1]
            wanted = count - start // stride if last else (stop - start) // stride
            contour = self.form.contour(f0[start : stop + last], wanted * stride)
            codes.append(self.network.encode(torch.from_numpy(contour)[None].to(device))[0].cpu())
        return torch.cat(codes).numpy().astype(np.int32)

    def decode(
        self, codes: Int[np.ndarray, " tokens"]
    ) -> tuple[Float[np.ndarray, " frames"], Float[np.ndarray, " frames"]]:
        """The contour at 200 Hz, relative to the chunk's mean in its scale (log or Hz), and the
        voicing share."""
        device = self.network.codebook.vectors.device
        with torch.inference_mode():
            index = torch.as_tensor(codes, dtype=torch.long, device=device)
            contour = self.network.decode(index[None])[0].float().cpu().numpy()
        return contour[0] / self.form.gain, contour[1]

    def figures(self, contours: Sequence[Float[np.ndarray, " _"]]) -> dict[str, float]:
        """How well codes know the F0 of recordings.

        `codes_used`: share of the codes that occur; `correlation`: decoded against heard log F0
        over voiced frames, mean over recordings; `voicing_error`: share of frames decoded as
        voiced that are not, or the reverse.
        """
        used: set[int] = set()
        correlations, wrong, frames = [], 0, 0
        for f0 in contours:
            codes = self.tokens(f0, max(1, (len(f0) - 1) // self.network.stride))
            used |= set(codes.tolist())
            decoded, voicing = self.decode(codes)
            span = min(len(f0), len(decoded))
            voiced = f0[:span] > 0
            wrong += int(((voicing[:span] > 0.5) != voiced).sum())
            frames += span
            if voiced.sum() > 20 and (true := np.log(f0[:span][voiced])).std() > 0:
                heard = decoded[:span][voiced]
                correlations.append(float(np.corrcoef(true, heard)[0, 1]))
        return {
            "recordings": len(contours),
            "codes_used": len(used) / self.codes,
            "correlation": float(np.mean(correlations)) if correlations else 0.0,
            "voicing_error": wrong / max(1, frames),
        }

    def save(self, folder: Path) -> None:
        """Write pitch.json and pitch.safetensors."""
        part.save(folder, "pitch", self.form, self.network)

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> "PitchTokenizer":
        """Read what `save` wrote. Raises ValueError if a file is missing or does not fit."""
        form = part.read_form(folder, "pitch", PitchFormat)
        network = form.network()
        part.read_weights(folder, "pitch", network, device)
        return cls(form, network, form.hear(device))
