"""The token stream of the released Spirit LM: its clock, its ids, its strings.

Facts from Nguyen et al. 2025 ("Spirit LM", arXiv 2402.05755) and the behaviour of the release.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

import numpy as np

from spirit.units import Kind, Track, Tracks, Units
from spirit.vocab import Vocab

Variant = Literal["base", "expressive"]

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
