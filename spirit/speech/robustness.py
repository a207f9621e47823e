"""How far units change where the words do not."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

Row = Int[np.ndarray, " _"]


def without_repeats(units: Row) -> Row:
    """The units as a model reads them."""
    return units[np.concatenate([[True], np.diff(units) != 0])] if len(units) else units


def edits(before: Row, after: Row) -> int:
    """How many insertions, deletions and substitutions lead from one to the other (Levenshtein)."""
    if len(after) > len(before):
        before, after = after, before
    places = np.arange(len(after) + 1)
    costs = places
    for unit in before:
        # What a deletion or a substitution costs; then insertions run on from the cheapest place.
        other = costs + 1
        other[1:] = np.minimum(other[1:], costs[:-1] + (after != unit))
        costs = np.minimum.accumulate(other - places) + places
    return int(costs[-1])


def unit_edit_distance(clean: Sequence[Row], worse: Sequence[Row]) -> float:
    """Edits from the units of clean recordings to those of the same made worse, both without
    repetitions, in per cent of the clean ones: the unit edit distance (UED) of Gat et al. 2023,
    "Augmentation invariant discrete representation for generative spoken language modeling".
    """
    rows = [(without_repeats(a), without_repeats(b)) for a, b in zip(clean, worse, strict=True)]
    return 100 * sum(edits(a, b) for a, b in rows) / max(1, sum(len(a) for a, _ in rows))
