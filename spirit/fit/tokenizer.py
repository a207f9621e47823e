"""The last step of fitting: the parts as one folder, with vocabulary and fingerprint."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from spirit.audio import read_audio
from spirit.data.corpus import read_corpus
from spirit.tokenizer import Tokenizer, assemble


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A tokenizer folder from its parts."""

    out: Path
    """The folder that is made; it must not exist."""
    hubert: Path
    """A folder of `fit hubert`, `fit units` or `fit robust`, a Hugging Face folder (HuBERT,
    mHuBERT, WavLM, wav2vec 2.0), or the file of a converted HuBERT."""
    units: Path
    """A folder of `fit units` or `fit robust`, centroids as safetensors or .npy, or a CTC-linear
    quantizer."""
    layer: int = 0
    """The layer that the units were fitted on; 0: the one its folder names, or the last."""
    pitch: Path | None = None
    """A folder of `fit pitch`; none: no pitch tokens."""
    style: Path | None = None
    """A folder of `fit style`, which needs pitch; none: no style tokens."""
    name: str = ""
    """What it is called; empty: as the folder."""
    license: str = ""
    """The licence of the weights."""
    check: Path | None = None
    """A corpus of which recordings are tried: HuBERT is rounded to half precision if their units
    stay as they are; none: it is not."""
    checks: int = 16
    """How many recordings of it."""


def fit_tokenizer(config: TokenizerConfig) -> dict[str, str | int]:
    """Assemble the folder `config.out`; gives its name, fingerprint and the number of units.

    Raises ValueError if a part is missing or does not fit the others, or where the folder exists.
    """
    if config.out.exists():
        raise ValueError(f"{config.out} exists; give a new folder, or remove it first")
    clips = islice(read_corpus(config.check), config.checks) if config.check else ()
    assemble(
        hubert=config.hubert,
        units=config.units,
        pitch=config.pitch,
        style=config.style,
        out=config.out,
        name=config.name or config.out.name,
        layer=config.layer,
        license=config.license,
        check=[read_audio(clip.audio) for clip in clips],
    )
    made = Tokenizer.load(config.out)
    counts = {kind.key: count for kind, count in made.encoder.counts.items()}
    return {"name": made.name, "fingerprint": made.fingerprint, **counts}
