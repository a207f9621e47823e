"""What speech is: tracks of integer units on one clock of 16 kHz samples, and the sequence a model
reads."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from fractions import Fraction
from math import ceil, floor, lcm

import numpy as np
from jaxtyping import Bool, Int

SAMPLE_RATE = 16_000


class Kind(IntEnum):
    """A kind of unit. The values are the order of kinds that begin at the same time (Spirit LM: St
    < Pi < Hu)."""

    STYLE = 0
    PITCH = 1
    HUBERT = 2

    @property
    def tag(self) -> str:
        """The name in token strings such as `[Hu12]`."""
        return ("St", "Pi", "Hu")[self]

    @property
    def key(self) -> str:
        """The name in files: column of a shard, block of a vocabulary."""
        return self.name.lower()

    @property
    def dedup(self) -> bool:
        """Whether a run of equal units is read as one. Style is not: its repetition tells the
        time."""
        return self is not Kind.STYLE


@dataclass(frozen=True)
class Word:
    """A word and where it was said: samples `[start, stop)` of the 16 kHz clock."""

    text: str
    start: int
    stop: int
    score: float = 1.0
    """How much the aligner believed it, 0 to 1."""


@dataclass(frozen=True, eq=False)
class Track:
    """Units of one kind at a constant rate. Frame `i` covers samples `start + [i, i + 1) * hop`."""

    kind: Kind
    unit: Int[np.ndarray, " frames"]
    hop: Fraction | int
    """Samples per frame; may be rational (the released HuBERT: 1,600,000/2,499)."""
    start: Fraction | int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "unit", np.asarray(self.unit, dtype=np.int32))
        object.__setattr__(self, "hop", Fraction(self.hop))
        object.__setattr__(self, "start", Fraction(self.start))

    def __len__(self) -> int:
        return len(self.unit)

    def clip(self, start: int, stop: int) -> "Track":
        """Keep the frames that overlap samples `[start, stop)`."""
        first = max(0, floor((start - self.start) / self.hop))
        last = min(len(self), ceil((stop - self.start) / self.hop)) if stop > start else first
        return Track(
            self.kind, self.unit[first : max(first, last)], self.hop, self.start + first * self.hop
        )


@dataclass(frozen=True, eq=False)
class Units:
    """The ordered, deduplicated sequence that a model reads: `unit[i]` is a unit of `kind[i]`."""

    kind: Int[np.ndarray, " units"]
    unit: Int[np.ndarray, " units"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", np.asarray(self.kind, dtype=np.int8))
        object.__setattr__(self, "unit", np.asarray(self.unit, dtype=np.int32))
        if self.kind.shape != self.unit.shape or self.kind.ndim != 1:
            raise ValueError(
                f"kinds {self.kind.shape} and units {self.unit.shape} must be two equal rows"
            )

    @classmethod
    def build(cls, pairs: Iterable[tuple[Kind, int]]) -> "Units":
        """From pairs such as `(Kind.HUBERT, 12)`."""
        rows = list(pairs)
        kinds, units = zip(*rows, strict=True) if rows else ((), ())
        return cls(np.array(kinds, dtype=np.int8), np.array(units, dtype=np.int32))

    def __len__(self) -> int:
        return len(self.unit)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Units)
            and np.array_equal(self.kind, other.kind)
            and np.array_equal(self.unit, other.unit)
        )

    def __hash__(self) -> int:
        return hash((self.kind.tobytes(), self.unit.tobytes()))

    def __add__(self, other: "Units") -> "Units":
        return Units(
            np.concatenate([self.kind, other.kind]), np.concatenate([self.unit, other.unit])
        )

    def __getitem__(self, span: slice | Bool[np.ndarray, " units"]) -> "Units":
        return Units(self.kind[span], self.unit[span])

    def __str__(self) -> str:
        """The release's token string, for people: `[St3][Pi4][Hu12]`."""
        return "".join(
            f"[{Kind(kind).tag}{unit}]" for kind, unit in zip(self.kind, self.unit, strict=True)
        )

    __repr__ = __str__

    def of(self, kind: Kind) -> Int[np.ndarray, " units"]:
        """The units of one kind, in order."""
        picked: np.ndarray = self.unit[self.kind == kind]
        return picked


@dataclass(frozen=True, eq=False)
class Tracks:
    """The tracks of one stretch of speech. `origin` is where the stretch begins, in samples."""

    by_kind: Mapping[Kind, Track]
    origin: int = 0

    @property
    def samples(self) -> int:
        """The length of the stretch: how far the track of the finest hop reaches beyond the origin.

        Coarser tracks reach further, since their last frame covers what remains of the recording.
        """
        if not self.by_kind:
            return 0
        finest = min(self.by_kind.values(), key=lambda track: track.hop)
        return max(0, ceil(finest.start + len(finest) * finest.hop) - self.origin)

    def clip(self, start: int, stop: int) -> "Tracks":
        """The stretch `[start, stop)`: each track keeps the frames in force anywhere in it."""
        return Tracks(
            {kind: track.clip(start, stop) for kind, track in self.by_kind.items()}, start
        )

    def merge(self) -> Units:
        """The units that a model reads, see `timed`."""
        return self.timed()[0]

    def timed(self) -> tuple[Units, Int[np.ndarray, " units"]]:
        """The units that a model reads, and when each comes into force, in whole samples.

        They are ordered by the time at which they come into force, without repetitions. HuBERT and
        pitch lose repeated units, style keeps them; ties are in the order of `Kind` (Spirit LM,
        Nguyen et al. 2025, section 2.2). A frame that was in force before the stretch began counts
        as beginning with it, so that a clip starts with its style and pitch. Times are exact
        integers.
        """
        tracks = [self.by_kind[kind] for kind in sorted(self.by_kind)]
        # One integer clock fine enough for every hop and start: no float ever decides an order.
        scale = lcm(*(n for t in tracks for n in (t.hop.denominator, t.start.denominator)), 1)
        kinds, units, times = [], [], []
        for track in tracks:
            onset = np.arange(len(track))
            if track.kind.dedup and len(track):
                onset = onset[np.concatenate([[True], np.diff(track.unit) != 0])]
            time = int(track.start * scale) + onset.astype(np.int64) * int(track.hop * scale)
            times.append(np.maximum(time, self.origin * scale))
            kinds.append(np.full(len(onset), track.kind, dtype=np.int8))
            units.append(track.unit[onset])
        if not tracks:
            return Units.build(()), np.zeros(0, np.int64)
        kind, unit, when = np.concatenate(kinds), np.concatenate(units), np.concatenate(times)
        order = np.lexsort((kind, when))  # stable: by time, then Kind
        return Units(kind[order], unit[order]), when[order] // scale
