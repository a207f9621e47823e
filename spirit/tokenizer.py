"""A tokenizer folder: everything between recordings, text and token ids, with one fingerprint."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float

from spirit import commit, config
from spirit.codec import Codec, HFText, byte_tokenizer
from spirit.formats.encoders import find_encoder
from spirit.formats.quantizers import read_quantizer
from spirit.speech.encoder import STRIDE, WINDOW, SpeechEncoder
from spirit.speech.f0 import HOP
from spirit.speech.pitch import CHUNK, TAIL, PitchTokenizer
from spirit.speech.pretrained import load_network
from spirit.speech.style import StyleTokenizer
from spirit.units import SAMPLE_RATE, Kind
from spirit.vocab import Vocab

MANIFEST = "tokenizer.toml"
HALF_AGREEMENT = 0.999
"""Share of units that must survive rounding HuBERT to half precision, or it stays in single."""
WINDOWS = {
    "window": WINDOW,
    "stride": STRIDE,
    "f0_chunk": CHUNK * HOP // SAMPLE_RATE,
    "f0_least": TAIL * HOP // SAMPLE_RATE,
}
"""How long recordings are cut, in seconds: what HuBERT hears at once, from one beginning to the
next; the chunks of F0, and the shortest that a last one may be. Units depend on it."""
FIRST_WINDOWS = {"window": 40, "stride": 32, "f0_chunk": 100, "f0_least": 10}
"""The rule of tokenizers that do not say theirs, and the one that fingerprints do not mention."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What tokenizer.toml says."""

    format: Literal[1] = 1
    name: str
    """The name of the folder, for people."""
    license: str = ""
    """The license of the weights."""
    fingerprint: str
    """16 hexadecimal digits that change with the vocabulary, any weight, or the windows."""
    windows: dict[str, int] = field(default_factory=lambda: dict(FIRST_WINDOWS))
    """How long recordings are cut, see `WINDOWS`."""
    files: dict[str, str]
    """File name to SHA-256 of everything the tokenizer consists of."""

    def __post_init__(self) -> None:
        if bad := [name for name in self.files if Path(name).name != name]:
            raise ValueError(f"files must lie beside tokenizer.toml, not at {bad[0]!r}")
        for name in ("hubert.json", "hubert.safetensors", "units.safetensors", "text.json"):
            if name not in self.files:
                raise ValueError(f"files must name {name}")
        if "style.json" in self.files and "pitch.json" not in self.files:
            raise ValueError("files name a style tokenizer, which needs a pitch tokenizer too")


class Tokenizer:
    """Speech to tracks, and documents to ids and back, the same in training and generation."""

    def __init__(
        self,
        encoder: SpeechEncoder,
        codec: Codec,
        name: str = "",
        fingerprint: str = "",
        license: str = "",
    ) -> None:
        """Raises ValueError if the vocabulary has no ids for what the encoder says."""
        wanted = {kind: codec.vocab.count.get(kind, 0) for kind in encoder.counts}
        if wanted != encoder.counts:
            raise ValueError(
                f"the vocabulary has {_counts(wanted)} but the encoder makes "
                f"{_counts(encoder.counts)}; assemble the tokenizer again"
            )
        self.encoder = encoder
        self.codec = codec
        self.name = name
        self.fingerprint = fingerprint
        self.license = license

    @property
    def vocab(self) -> Vocab:
        """Which id means what."""
        return self.codec.vocab

    @property
    def windows(self) -> Mapping[str, float]:
        """How long recordings are cut, in seconds."""
        return WINDOWS

    @property
    def styles(self) -> Sequence[str]:
        """The name of each style unit; none where the tokenizer has no style."""
        return () if self.encoder.style is None else self.encoder.style.names

    @classmethod
    def load(
        cls, folder: Path, device: torch.device | str = "cpu", *, bf16: bool = False
    ) -> "Tokenizer":
        """Read a tokenizer folder and check that every file is what was assembled.

        With `bf16` its HuBERT computes in bfloat16. Raises ValueError in one line that names the
        file and what to do.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ValueError(f"{folder}: no such tokenizer; give the path of a tokenizer folder")
        if not (folder / MANIFEST).is_file():
            raise ValueError(f"{folder} holds no {MANIFEST}; it is not a tokenizer folder")
        manifest = config.load(folder / MANIFEST, Manifest)
        for name, digest in manifest.files.items():
            if not (folder / name).is_file():
                raise ValueError(f"{folder / name} is missing; restore it, or fit the tokenizer")
            if commit.sha256(folder / name) != digest:
                raise ValueError(
                    f"{folder / name} is not the file that was assembled; restore it, or fit the "
                    "tokenizer again"
                )
        if manifest.windows != WINDOWS:
            raise ValueError(
                f"{folder / MANIFEST}: long recordings were cut by {_seconds(manifest.windows)}, "
                f"but this version cuts them by {_seconds(WINDOWS)}; fit the tokenizer again, or "
                "use the version that made it"
            )
        vocab = Vocab.load(folder / "vocab.json")
        if fingerprint(vocab, manifest.files, manifest.windows) != manifest.fingerprint:
            raise ValueError(
                f"{folder / 'vocab.json'} is not the vocabulary that was assembled; restore it, or "
                "fit the tokenizer again"
            )
        where = torch.device(device)
        encoder = SpeechEncoder(
            load_network(folder).to(where),
            read_quantizer(folder / "units.safetensors").to(where),
            PitchTokenizer.load(folder, where) if "pitch.json" in manifest.files else None,
            StyleTokenizer.load(folder, where) if "style.json" in manifest.files else None,
            bf16=bf16,
        )
        codec = Codec(HFText.load(folder / "text.json"), vocab)
        return cls(encoder, codec, manifest.name, manifest.fingerprint, manifest.license)


def assemble(
    *,
    hubert: Path,
    units: Path,
    pitch: Path | None,
    style: Path | None,
    out: Path,
    name: str,
    layer: int = 0,
    text: Callable[[Path], None] = byte_tokenizer,
    multiple: int = 64,
    license: str = "",
    check: Sequence[Float[np.ndarray, " _"]] = (),
) -> float:
    """Put fitted parts together into the tokenizer folder `out`, which appears whole.

    `hubert` is what `find_encoder` reads, `units` what `read_quantizer` reads, or a folder of
    `fit units`, `pitch` and `style` are folders; the layers of HuBERT above `layer` (0: the one its
    folder names) are left out. `text` writes the text tokenizer, a `tokenizer.json` as `HFText`
    reads it; behind its ids come those of markers and units, and ids in reserve up to a `multiple`.
    Weights of HuBERT are rounded to half precision where that leaves the units of the recordings in
    `check` as they are, which halves the folder; without recordings they are not. Returns the share
    of units that rounding left alone. Raises ValueError if a part is missing or does not fit the
    others, or where the text tokenizer has a token of the name of a marker or unit.
    """
    network = find_encoder(hubert, layer)
    quantizer = read_quantizer(units / "units.safetensors" if units.is_dir() else units)
    pitch_part = None if pitch is None else PitchTokenizer.load(pitch)
    style_part = None if style is None else StyleTokenizer.load(style)
    encoder = SpeechEncoder(network, quantizer, pitch_part, style_part)
    agreement = _round(encoder, check)
    with commit.folder(out) as partial:
        network.save(partial)
        quantizer.save(partial / "units.safetensors")
        if pitch_part is not None:
            pitch_part.save(partial)
        if style_part is not None:
            style_part.save(partial)
        text(partial / "text.json")
        files = {path.name: commit.sha256(path) for path in sorted(partial.iterdir())}
        vocab = _vocabulary(partial / "text.json", encoder.counts, multiple)
        vocab.save(partial / "vocab.json")
        manifest = Manifest(
            name=name,
            license=license,
            fingerprint=fingerprint(vocab, files, WINDOWS),
            windows=dict(WINDOWS),
            files=files,
        )
        commit.text(partial / MANIFEST, config.dump(manifest))
        Tokenizer.load(partial)  # what cannot be read must not be committed
    return agreement


def fingerprint(vocab: Vocab, files: Mapping[str, str], windows: Mapping[str, int]) -> str:
    """16 hexadecimal digits that change with the vocabulary, any file, or the windows."""
    parts: dict[str, Any] = {"vocab": vocab.fingerprint, "files": dict(sorted(files.items()))}
    if windows != FIRST_WINDOWS:
        parts["windows"] = dict(windows)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _vocabulary(text: Path, counts: Mapping[Kind, int], multiple: int) -> Vocab:
    tokenizer = HFText.load(text)
    vocab = Vocab.build(
        tokenizer.size,
        tokenizer.bos,
        tokenizer.eos,
        counts,
        special=tokenizer.special,
        multiple=multiple,
    )
    if taken := [name for name in vocab.appended().values() if tokenizer.id(name) is not None]:
        more = f" and {len(taken) - 3} more" if len(taken) > 3 else ""
        raise ValueError(
            f"the text tokenizer already has tokens of the names that markers and units get: "
            f"{', '.join(taken[:3])}{more}; take the tokenizer of a model that knows text only"
        )
    return vocab


def _round(encoder: SpeechEncoder, check: Sequence[Float[np.ndarray, " _"]]) -> float:
    """Round HuBERT to half precision if units stay as they are; the share of units that do."""
    if not check:
        return 0.0
    exact = {k: v.clone() for k, v in encoder.hubert.network.state_dict().items()}
    before = [t.by_kind[Kind.HUBERT].unit for t in encoder.encode_batch(check, [Kind.HUBERT])]
    encoder.hubert.network.half().float()
    after = [t.by_kind[Kind.HUBERT].unit for t in encoder.encode_batch(check, [Kind.HUBERT])]
    same = float((np.concatenate(before) == np.concatenate(after)).mean())
    if same >= HALF_AGREEMENT:
        encoder.hubert.network.half()
    else:
        encoder.hubert.network.load_state_dict(exact)
    return same


def _seconds(windows: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {seconds} s" for name, seconds in windows.items())


def _counts(counts: Mapping[Kind, int]) -> str:
    return ", ".join(f"{count} {kind.key} units" for kind, count in sorted(counts.items()))
