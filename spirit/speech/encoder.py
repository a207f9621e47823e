"""The speech encoder: a wave in, the tracks of its units, pitch and style out."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spirit.speech.hubert import Hubert
from spirit.speech.pitch import PitchTokenizer
from spirit.speech.pretrained import Pretrained
from spirit.speech.quantizer import CTCLinear, KMeans
from spirit.speech.style import StyleTokenizer, pool_features
from spirit.units import SAMPLE_RATE, Kind, Track, Tracks

WINDOW, STRIDE = 20, 16
"""Seconds that HuBERT hears at once, and from one beginning to the next."""
BATCH_SECONDS = 40.0
"""Seconds, padding included, that HuBERT takes together; more leaves a CPU's caches."""

Digest = TypeVar("Digest")
Wave = Float[np.ndarray, " _"] | Float[Tensor, " _"]


@dataclass(frozen=True)
class Window:
    """A stretch that HuBERT hears, and the frames taken from it; all counted in frames."""

    wave: int
    start: int
    stop: int
    first: int
    last: int


def windows(wave: int, frames: int, rate: int) -> Iterator[Window]:
    """Cut a recording: up to 20 s are one window; longer ones have windows of 20 s every 16 s.

    Each frame comes from the window whose middle is nearest, so none of them lies within 2 s of a
    cut, and the result does not depend on how a file is read or batched.
    """
    length, stride = WINDOW * rate, STRIDE * rate
    margin = (length - stride) // 2
    start = 0
    while start + length < frames:
        yield Window(
            wave, start, start + length, start + margin * (start > 0), start + stride + margin
        )
        start += stride
    yield Window(wave, start, frames, start + margin * (start > 0), frames)


def hear(
    hubert: Hubert | Pretrained,
    waves: Sequence[Float[np.ndarray, " _"]],
    digest: Callable[[Float[Tensor, "frames channels"]], Digest],
    *,
    bf16: bool = False,
) -> list[list[Digest]]:
    """What `digest` makes of the features of every wave, window by window in order of time.

    Only the digests are kept, so that a recording of hours takes no more memory than one of 20 s.
    With `bf16` the network's products are computed in bfloat16; features are float32 either way.
    """
    hop, where = hubert.hop, next(hubert.parameters()).device.type
    cuts = [
        window
        for i, wave in enumerate(waves)
        for window in windows(i, hubert.frames(len(wave)), SAMPLE_RATE // hop)
    ]
    digests: dict[Window, Digest] = {}
    for batch in _batches(cuts, int(BATCH_SECONDS * SAMPLE_RATE / hop)):
        # A frame sees a little beyond its own samples: a piece ends where a next frame would.
        pieces = [waves[w.wave][w.start * hop : (w.stop + 1) * hop - 1] for w in batch]
        with torch.autocast(where, torch.bfloat16, enabled=bf16):
            heard = hubert.features(pieces)
        for window, features in zip(batch, heard, strict=True):
            kept = features[window.first - window.start : window.last - window.start]
            digests[window] = digest(kept)
    parts: list[list[Digest]] = [[] for _ in waves]
    for window in cuts:
        parts[window.wave].append(digests[window])
    return parts


class SpeechEncoder:
    """Waves to tracks, by one pass of HuBERT and one of F0.

    A wave of `n` samples has `max(1, n // 640)` HuBERT units, half as many pitch tokens and a 25th
    as many style tokens, both rounded up: every track covers the others. The shortest sounds count
    as one frame with silence behind them, and silence has units like any other sound. How waves
    are batched changes nothing.
    """

    def __init__(
        self,
        hubert: Hubert | Pretrained,
        quantizer: KMeans | CTCLinear,
        pitch: PitchTokenizer | None = None,
        style: StyleTokenizer | None = None,
        *,
        bf16: bool = False,
    ) -> None:
        """All parts on one device; `bf16` lets HuBERT compute in bfloat16. Raises ValueError if
        they do not fit together."""
        if isinstance(hubert, Pretrained) and not hubert.padded:
            raise ValueError(
                "this encoder counts frames by whole hops; read the network with padded=True"
            )
        channels = quantizer.channels
        if channels != hubert.channels:
            raise ValueError(
                f"the quantizer was fitted on {channels} channels but this HuBERT has "
                f"{hubert.channels}; run `spirit fit units` with it"
            )
        if style is not None and style.form.channels != hubert.channels:
            raise ValueError(
                f"the style tokenizer was fitted on {style.form.channels} channels but this HuBERT "
                f"has {hubert.channels}; run `spirit fit style` with it"
            )
        if style is not None and pitch is None:
            raise ValueError("style tokens need F0: give the pitch tokenizer too")
        self.hubert = hubert.eval()
        self.quantizer = quantizer
        self.pitch = pitch
        self.style = style
        self.bf16 = bf16

    @property
    def counts(self) -> dict[Kind, int]:
        """The kinds of unit it makes, and how many of each there are."""
        counts = {Kind.HUBERT: len(self.quantizer)}
        if self.pitch is not None:
            counts[Kind.PITCH] = self.pitch.codes
        if self.style is not None:
            counts[Kind.STYLE] = len(self.style.names)
        return counts

    def encode(self, wave: Wave, kinds: Collection[Kind] | None = None) -> Tracks:
        """The tracks of a 16 kHz wave; `kinds` limits them (HuBERT alone: the base variant)."""
        return self.encode_batch([wave], kinds)[0]

    def encode_batch(
        self, waves: Sequence[Wave], kinds: Collection[Kind] | None = None
    ) -> list[Tracks]:
        """The tracks of several waves, each the same as alone.

        Raises ValueError for a wave with values that are not finite, or a kind it has no part for.
        """
        wanted = set(self.counts if kinds is None else kinds) | {Kind.HUBERT}
        if missing := wanted - set(self.counts):
            names = ", ".join(kind.key for kind in sorted(missing))
            raise ValueError(f"this tokenizer makes no units of the kind {names}")
        heard = [checked(wave) for wave in waves]
        pool = self.style is not None and Kind.STYLE in wanted
        rate = SAMPLE_RATE // self.hubert.hop
        parts = hear(
            self.hubert,
            heard,
            # A window's part begins on a whole second, so seconds can be pooled window by window.
            lambda features: (
                self.quantizer.units(features),
                pool_features(features, rate) if pool else features[:0],
            ),
            bf16=self.bf16,
        )
        device = next(self.hubert.parameters()).device
        f0: list[np.ndarray] = []
        if self.pitch is not None and wanted & {Kind.PITCH, Kind.STYLE}:
            f0 = self.pitch.f0([torch.from_numpy(wave).to(device) for wave in heard])
        tracks = []
        for i, part in enumerate(parts):
            unit = np.concatenate([units for units, _ in part])
            by_kind = {Kind.HUBERT: Track(Kind.HUBERT, unit, self.hubert.hop)}
            if self.pitch is not None and Kind.PITCH in wanted:
                hop = self.pitch.form.hop
                codes = self.pitch.tokens(f0[i], -(-len(unit) * self.hubert.hop // hop))
                by_kind[Kind.PITCH] = Track(Kind.PITCH, codes, hop)
            if self.style is not None and Kind.STYLE in wanted:
                pooled = torch.cat([seconds for _, seconds in part])
                styles = self.style.tokens(pooled, f0[i])
                by_kind[Kind.STYLE] = Track(Kind.STYLE, styles, SAMPLE_RATE)
            tracks.append(Tracks(by_kind))
        return tracks


def _batches(cuts: Sequence[Window], budget: int) -> Iterator[list[Window]]:
    """Windows of similar length, at most `budget` frames together with their padding."""
    batch: list[Window] = []
    for window in sorted(cuts, key=lambda w: w.start - w.stop):  # the longest first
        longest = batch[0].stop - batch[0].start if batch else 0
        if batch and longest * (len(batch) + 1) > budget:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


def checked(wave: Wave) -> Float[np.ndarray, " samples"]:
    """A wave as float32 on the CPU. Raises ValueError if a sample is not finite."""
    samples = np.asarray(wave.cpu() if isinstance(wave, Tensor) else wave, dtype=np.float32)
    if not np.isfinite(samples).all():
        raise ValueError("the wave holds NaN or infinite samples; read it with `read_audio`")
    return samples
