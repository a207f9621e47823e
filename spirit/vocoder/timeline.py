"""Units of an utterance that still grows, laid out in time once what follows cannot change it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from spirit.units import Kind, Units
from spirit.vocoder.frames import CHANGES, NONE, Frames, Runs, lay_out

PATIENCE = 32
"""Units that wait for the first pitch and style; one that comes later is in force from there on."""

Predict = Callable[[Runs], Float[np.ndarray, " runs"]]
"""How many frames each run lasts, not rounded."""


@dataclass
class _Run:
    unit: int
    force: dict[Kind, int]
    """Pitch and style at its onset, where they are known."""
    after: list[tuple[Kind, int]] = field(default_factory=list)
    """What is written after it, before the next run."""


class Timeline:
    """Deduplicated units in, frames out: those that `lay_out` gives for the whole utterance."""

    def __init__(
        self,
        predict: Predict,
        reach: tuple[int, int],
        *,
        pace: float = 1.0,
        rate: float = 1.0,
        awaited: Collection[Kind] = (),
        spread: bool = True,
    ) -> None:
        """`reach`: how many runs before one `predict` looks at, and how many after it must have
        begun until it is settled. The first frames wait for the kinds `awaited`."""
        self.predict, (self.left, self.right) = predict, reach
        self.pace, self.rate, self.awaited, self.spread = pace, rate, set(awaited), spread
        self.frames = 0
        """Frames that are settled."""
        self.owed = 0.0
        self.force: dict[Kind, int] = {}
        self.past: list[_Run] = []
        self.open: list[_Run] = []

    def push(self, units: Units) -> Frames:
        """Take more units; returns the frames that nothing to come can change."""
        for number, unit in zip(units.kind.tolist(), units.unit.tolist(), strict=True):
            kind = Kind(number)
            if kind is Kind.HUBERT:
                self.open.append(_Run(unit, dict(self.force)))
                continue
            if kind not in self.force:  # the first is in force before, too
                for run in self.open:
                    run.force[kind] = unit
            self.force[kind] = unit
            if self.open:
                self.open[-1].after.append((kind, unit))
        waits = not self.awaited <= set(self.force) and len(self.open) < PATIENCE
        return self._settle(0 if waits else max(0, len(self.open) - max(1, self.right)))

    def finish(self) -> Frames:
        """Return the frames that are left: the utterance ends here."""
        return self._settle(len(self.open))

    def drop(self) -> bool:
        """Forget the last run, with what is written after it; whether there was one to forget."""
        return bool(self.open and self.open.pop())

    def total(self) -> int:
        """How many frames there would be if the utterance ended here."""
        return self.frames + int(self._durations(len(self.open))[0].sum())

    def _durations(self, count: int) -> tuple[Int[np.ndarray, " runs"], float]:
        if not count:
            return np.zeros(0, np.int64), self.owed
        known = [*self.past, *self.open]
        heads = Runs(
            np.array([run.unit for run in known], np.int64),
            np.array([run.force.get(Kind.PITCH, NONE) for run in known], np.int64),
            np.array([run.force.get(Kind.STYLE, NONE) for run in known], np.int64),
            np.array(
                [min(CHANGES, sum(k is Kind.PITCH for k, _ in run.after)) for run in known],
                np.int64,
            ),
        )
        exact = self.predict(heads)[len(self.past) :][:count]
        return rounded(exact, self.pace, self.rate, self.owed)

    def _settle(self, count: int) -> Frames:
        durations, self.owed = self._durations(count)
        settled, self.open = self.open[:count], self.open[count:]
        self.frames += int(durations.sum())
        if not count:
            empty = np.zeros(0, np.int64)
            return Frames(empty, empty, empty)
        pairs = [(kind, settled[0].force[kind]) for kind in sorted(settled[0].force)]
        for run in settled:
            pairs += [(Kind.HUBERT, run.unit), *run.after]
        self.past = [*self.past, *settled][-self.left :] if self.left else []
        return lay_out(Units.build(pairs), durations, self.spread)


def rounded(
    exact: Float[np.ndarray, " runs"], pace: float, rate: float = 1.0, owed: float = 0.0
) -> tuple[Int[np.ndarray, " runs"], float]:
    """Return whole frames, and what is owed to the runs that follow.

    Each run has at least one, as said at a `rate` of 1. Most have no more, so that at a higher rate
    some are left out in their turn.
    """
    if pace == rate == 1.0:
        return np.maximum(np.round(exact), 1).astype(np.int64), owed
    least = 1 if rate <= 1 else 0
    # What rounding takes from one unit goes to the next, so that the whole keeps its length.
    durations: list[int] = []
    for frames in np.maximum(exact * pace, 1 - least) / rate:
        owed += float(frames)
        durations.append(max(least, round(owed)))
        owed -= durations[-1]
    return np.array(durations, np.int64), owed
