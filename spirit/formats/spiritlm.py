"""The token stream of the released Spirit LM: its clock, its ids, its strings.

Facts from Nguyen et al. 2025 ("Spirit LM", arXiv 2402.05755) and the behaviour of the release.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np

from spirit.units import Kind, Track, Tracks, Units
from spirit.vocab import Vocab

Variant = Literal["base", "expressive"]

CHECKPOINTS = "SPIRITLM_CHECKPOINTS_DIR"
"""The environment variable that names the folder of the released checkpoints."""
MODELS: dict[str, Variant] = {
    "spirit-lm-base-7b": "base",
    "spirit-lm-expressive-7b": "expressive",
}
"""The language models by their released names."""

HOPS: dict[Kind, Fraction] = {
    # 24.99 frames a second: a chunk of 100 s gives 2,499 of them.
    Kind.HUBERT: Fraction(1_600_000, 2_499),
    Kind.PITCH: Fraction(1_280),
    Kind.STYLE: Fraction(16_000),
}

_TOKEN = re.compile(
    r"\[(Hu|Pi|St)(\d+)\]?"
)  # the last bracket may be missing where a string was cut
_KINDS = {kind.tag: kind for kind in Kind}


def checkpoints() -> Path:
    """The folder of the released checkpoints. Raises ValueError if none is named."""
    named = os.environ.get(CHECKPOINTS, "")
    if not named:
        raise ValueError(f"{CHECKPOINTS} is not set; name the folder of the released checkpoints")
    folder = Path(named)
    if not folder.is_dir():
        raise ValueError(f"{CHECKPOINTS} names {folder}, which is no folder; correct it")
    return folder


def speech_tokenizer_folder() -> Path:
    """The released speech tokenizer. Raises ValueError if it is not there."""
    folder = checkpoints() / "speech_tokenizer"
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; the release's speech tokenizer belongs there")
    return folder


def model_folder(name: str | Path) -> tuple[Path, Variant]:
    """A released language model by its name or its path, and which of the two it is.

    A folder may have any name: its vocabulary of 32,512 or 32,768 rows says what it is. Raises
    ValueError for what is neither a name nor such a folder.
    """
    if str(name) in MODELS and not Path(name).is_dir():
        folder = checkpoints() / "spiritlm_model" / str(name)
    else:
        folder = Path(name)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; give one, or a name: {' or '.join(MODELS)}")
    try:
        rows = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"{folder} holds no config.json of a language model") from None
    for variant in MODELS.values():
        if rows == vocab(variant).size:
            return folder, variant
    raise ValueError(
        f"{folder / 'config.json'} says vocab_size {rows}; the released models have 32512 (base) "
        "or 32768 (expressive)"
    )


def vocab(variant: Variant) -> Vocab:
    """The ids of the released checkpoints: 32,512 rows (base) or 32,768 (expressive)."""
    blocks = {Kind.HUBERT: (32_002, 501)}
    if variant == "expressive":
        blocks |= {Kind.PITCH: (32_503, 64), Kind.STYLE: (32_567, 100)}
    return Vocab(
        text_tokens=32_000,
        bos=1,
        eos=2,
        special=(0, 1),
        markers={"text": 32_000, "speech": 32_001},
        blocks=blocks,
        size=32_512 if variant == "base" else 32_768,
    )


def tracks(units: Mapping[Kind, Sequence[int]]) -> Tracks:
    """Undeduplicated units on the released clock."""
    return Tracks(
        {
            kind: Track(kind, np.array(unit, dtype=np.int32), HOPS[kind])
            for kind, unit in units.items()
        }
    )


def parse(string: str) -> Units:
    """The units in a token string, in order; anything between them is skipped."""
    return Units.build((_KINDS[tag], int(unit)) for tag, unit in _TOKEN.findall(string))


def expand(units: Units, styles: Sequence[int] = (71, 68, 98)) -> dict[Kind, list[int]]:
    """One pitch and one style beside every HuBERT unit, each the one in force there.

    What comes before the first pitch or style takes the first one. If there is pitch but no style,
    the first of `styles`, the release's most common ones (it draws one of them; here the same input
    always gives the same output). Without any pitch or style token only HuBERT units are returned.
    """
    present = {Kind(kind) for kind in units.kind}
    force: dict[Kind, int] = {
        kind: int(units.of(kind)[0]) for kind in (Kind.PITCH, Kind.STYLE) if kind in present
    }
    if Kind.PITCH in present and Kind.STYLE not in present:
        force[Kind.STYLE] = styles[0]
    streams: dict[Kind, list[int]] = {Kind.HUBERT: [], **{kind: [] for kind in force}}
    for kind, unit in zip(units.kind.tolist(), units.unit.tolist(), strict=True):
        if kind == Kind.HUBERT:
            streams[Kind.HUBERT].append(unit)
            for other, value in force.items():
                streams[other].append(value)
        else:
            force[Kind(kind)] = unit
    return streams
