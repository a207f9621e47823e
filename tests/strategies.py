"""Hypothesis strategies for speech and documents."""

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from spirit.codec import Document
from spirit.units import Kind, Track, Tracks, Units

COUNTS = {Kind.HUBERT: 200, Kind.PITCH: 64, Kind.STYLE: 9}
OUR_HOPS = {Kind.HUBERT: Fraction(640), Kind.PITCH: Fraction(1_280), Kind.STYLE: Fraction(16_000)}


@st.composite
def speech(draw: st.DrawFn, max_frames: int = 120, hops: dict[Kind, Fraction] = OUR_HOPS) -> Tracks:
    """Tracks of up to `max_frames` HuBERT frames, with few distinct units so that runs occur."""
    frames = draw(st.integers(1, max_frames))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    length = frames * hops[Kind.HUBERT]
    tracks = {}
    for kind, hop in hops.items():
        count = -(-length // hop)
        tracks[kind] = Track(kind, rng.integers(0, min(4, COUNTS[kind]), int(count)), hop)
    return Tracks(tracks)


units = st.lists(
    st.sampled_from(list(Kind)).flatmap(
        lambda kind: st.tuples(st.just(kind), st.integers(0, COUNTS[kind] - 1))
    ),
    min_size=1,
    max_size=30,
).map(Units.build)

texts = st.text(min_size=1, max_size=40) | st.sampled_from(
    ["[Hu12]", "</s>", "<s>[Text] a", "[Speech][St1][Pi2]", " ", "\u2581x", "naïve 中文"]
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    """Normal documents: no empty segment, none followed by its like."""
    count = draw(st.integers(1, 5))
    spoken = draw(st.booleans())
    segments = []
    for _ in range(count):
        segments.append(draw(units if spoken else texts))
        spoken = not spoken
    return Document(tuple(segments), closed=draw(st.booleans()))
