"""The released speech tokenizer of Spirit LM, from its folder `speech_tokenizer/` as it is."""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int

from spirit import commit
from spirit.formats.fairseq import read_hubert
from spirit.formats.quantizers import read_quantizer
from spirit.formats.spiritlm import HOPS, Variant, vocab
from spirit.formats.spiritlm_pitch import ReleasedPitch
from spirit.formats.spiritlm_style import ReleasedStyle
from spirit.speech.encoder import SECTION, Wave, checked
from spirit.speech.listening import Chunked
from spirit.speech.pretrained import Pretrained, in_bf16
from spirit.speech.quantizer import CTCLinear, KMeans
from spirit.units import SAMPLE_RATE, Kind, Track, Tracks
from spirit.vocab import Vocab

LAYER = 11
"""The layer of HuBERT, counted from 1, whose features become units."""
CHUNK = 100 * SAMPLE_RATE
"""Samples that are encoded together."""
SHORTEST = 1_280
"""Samples that a chunk must have; a shorter rest is dropped, and so is a shorter recording."""
TOGETHER = 40 * SAMPLE_RATE
"""Samples, padding included, that a network takes at once, unless one chunk has more."""
WINDOWS = {"chunk": CHUNK / SAMPLE_RATE, "least": SHORTEST / SAMPLE_RATE}
"""How recordings are cut, in seconds: what is encoded together, and the shortest rest that is."""

HUBERT = Path("hubert_25hz", "mhubert_base_25hz.pt")
QUANTIZER = Path("hubert_25hz", "L11_quantizer_500.pt")
PITCH = Path("vqvae_f0_quantizer")
STYLE = Path("style_encoder_w2v2")


@dataclass(frozen=True)
class _Chunk:
    recording: int
    wave: Float[np.ndarray, " samples"]


class ReleasedEncoder:
    """Waves to tracks exactly as the released Spirit LM makes them, with the calls of
    `SpeechEncoder`.

    A recording is encoded in chunks of 100 s from its beginning; a last one of less than 80 ms is
    dropped, and a recording shorter than that has no units at all. A chunk of `n` samples has
    `(n - 720) // 640 + 1` HuBERT units, `(n // 80 + 1) // 16` pitch tokens and one style token for
    every 50 frames of wav2vec 2.0, begun ones included. What recordings are encoded together does
    not matter.
    """

    def __init__(
        self,
        hubert: Pretrained,
        quantizer: CTCLinear | KMeans,
        pitch: ReleasedPitch | None = None,
        style: ReleasedStyle | None = None,
        *,
        bf16: bool = False,
    ) -> None:
        """All parts on one device; with `bf16` a copy of HuBERT computes in bfloat16, and units
        are no longer exactly the release's. Raises ValueError if they do not fit together."""
        if quantizer.channels != hubert.channels:
            raise ValueError(
                f"the quantizer takes {quantizer.channels} channels but this HuBERT has "
                f"{hubert.channels}; the two are not from one release"
            )
        if hubert.hop != 640 or (pitch is not None and pitch.hop != HOPS[Kind.PITCH]):
            raise ValueError(
                f"this HuBERT has a frame every {hubert.hop} samples; the released clock has 640, "
                "and a pitch token every 1280"
            )
        self.hubert = in_bf16(hubert) if bf16 else hubert
        # The sums of the release, in its order: where two units are equally near, that decides.
        self.hubert.packs = False
        self.quantizer, self.pitch, self.style = quantizer, pitch, style

    @property
    def counts(self) -> dict[Kind, int]:
        """The kinds of unit it makes, and how many of each there are, the blank included."""
        counts = {Kind.HUBERT: len(self.quantizer)}
        if self.pitch is not None:
            counts[Kind.PITCH] = self.pitch.codes
        if self.style is not None:
            counts[Kind.STYLE] = self.style.styles
        return counts

    @classmethod
    def load(
        cls,
        folder: Path,
        variant: Variant = "expressive",
        device: torch.device | str = "cpu",
        *,
        bf16: bool = False,
    ) -> "ReleasedEncoder":
        """Read a released `speech_tokenizer/` folder; base needs the files of HuBERT alone.

        Raises ValueError for a file that is missing, damaged or of another model.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such folder; give the path of speech_tokenizer")
        quantizer = read_quantizer(folder / QUANTIZER)
        expressive = variant == "expressive"
        return cls(
            read_hubert(folder / HUBERT, LAYER).to(device),
            quantizer.to(torch.device(device)),
            ReleasedPitch.load(folder / PITCH, device) if expressive else None,
            ReleasedStyle.load(folder / STYLE, device) if expressive else None,
            bf16=bf16,
        )

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
        chunks = [
            _Chunk(i, wave[start : start + CHUNK])
            for i, wave in enumerate(map(checked, waves))
            for start in range(0, len(wave) - SHORTEST + 1, CHUNK)
        ]
        units: dict[tuple[Kind, int], Int[np.ndarray, " _"]] = {}
        for batch in _batches(chunks):
            heard = [chunks[k].wave for k in batch]
            for k, features in zip(batch, self.hubert.features(heard), strict=True):
                units[Kind.HUBERT, k] = self.quantizer.units(features)
            if self.style is not None and Kind.STYLE in wanted:
                for k, styles in zip(batch, self.style.tokens(heard), strict=True):
                    units[Kind.STYLE, k] = styles
            if self.pitch is not None and Kind.PITCH in wanted:
                for k in batch:
                    units[Kind.PITCH, k] = self.pitch.tokens(chunks[k].wave)
        tracks = []
        for i in range(len(waves)):
            mine = [k for k, chunk in enumerate(chunks) if chunk.recording == i]
            by_kind = {}
            for kind in sorted(wanted):
                parts = [np.zeros(0, np.int32), *(units[kind, k] for k in mine)]
                by_kind[kind] = Track(kind, np.concatenate(parts), HOPS[kind])
            tracks.append(Tracks(by_kind))
        return tracks

    def listen(self, kinds: Collection[Kind] | None = None) -> Chunked:
        """Hear a recording while it is being read: its chunks of 100 s as they are complete."""
        return Chunked(lambda wave: self.encode(wave, kinds), CHUNK)

    def encode_long(
        self, sections: Iterable[tuple[Wave, bool]], kinds: Collection[Kind] | None = None
    ) -> Tracks:
        """As of `SpeechEncoder`: a section is a whole number of chunks."""
        every = [
            self.encode(wave[: SECTION * SAMPLE_RATE] if more else wave, kinds).by_kind
            for wave, more in sections
        ]
        return Tracks(
            {
                kind: Track(kind, np.concatenate([some[kind].unit for some in every]), track.hop)
                for kind, track in every[0].items()
            }
        )


def _batches(chunks: Sequence[_Chunk]) -> Iterator[list[int]]:
    """Numbers of chunks of similar length, together with their padding at most `TOGETHER` long."""
    order = sorted(range(len(chunks)), key=lambda k: -len(chunks[k].wave))
    while order:
        count = max(1, TOGETHER // len(chunks[order[0]].wave))
        yield order[:count]
        order = order[count:]


@dataclass(frozen=True, eq=False)
class ReleasedTokenizer:
    """What makes unit shards for the released language models: units, and the ids they get."""

    encoder: ReleasedEncoder
    vocab: Vocab
    name: str
    fingerprint: str
    """16 hexadecimal digits that change with the vocabulary or any weight."""

    @property
    def windows(self) -> Mapping[str, float]:
        """How recordings are cut, in seconds; the release's own rule, and no part of a file."""
        return WINDOWS

    @classmethod
    def load(
        cls,
        folder: Path,
        variant: Variant = "expressive",
        device: torch.device | str = "cpu",
        *,
        bf16: bool = False,
    ) -> "ReleasedTokenizer":
        """Read a released `speech_tokenizer/` folder for one of the two variants.

        Raises ValueError for a file that is missing, damaged or of another model.
        """
        encoder = ReleasedEncoder.load(folder, variant, device, bf16=bf16)
        ids = vocab(variant)
        for kind, count in encoder.counts.items():
            if count > ids.count[kind]:
                raise ValueError(
                    f"{folder} makes {count} {kind.key} units, but the released models have ids "
                    f"for {ids.count[kind]}; it is not their tokenizer"
                )
        digest = hashlib.sha256(ids.fingerprint.encode())
        parts = [HUBERT, QUANTIZER]
        if variant == "expressive":
            parts += [PITCH / "config.yaml", PITCH / "model.pt"]
            # The weights may be in any of several files.
            parts += sorted(
                STYLE / path.name for path in (folder / STYLE).iterdir() if path.is_file()
            )
        for part in parts:
            digest.update(f"{part.as_posix()} {commit.sha256(folder / part)}\n".encode())
        return cls(encoder, ids, f"spiritlm-{variant}", digest.hexdigest()[:16])


def is_released(folder: Path) -> bool:
    """Whether a folder is a released `speech_tokenizer/`."""
    return (folder / HUBERT.parent).is_dir()
