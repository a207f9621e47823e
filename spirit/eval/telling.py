"""Voices and styles told apart by a logistic regression on F0, rate and means of cepstra.

It is trained on recordings alone, and on none that it then judges or judges a copy of: a fifth of
them is judged by what was learned from the others.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from spirit.eval.cepstra import cepstra, spoken_seconds

FOLDS = 5
MELODY = 4
"""The first features, melody and rate: what styles are made of, while cepstra tell voices."""
Features = Mapping[str, Sequence[float]]
"""What `describe` says of each utterance."""


def describe(
    wave: Float[np.ndarray, " samples"], f0: Float[np.ndarray, " frames"], text: str
) -> list[float]:
    """Mean and spread of log F0, share of voiced frames, log of letters a second, means of 13
    cepstra.

    `f0` is in Hz, 0 where unvoiced; without any voice its mean and spread are 0.
    """
    voiced = np.log(f0[f0 > 0])
    frames = cepstra(wave)
    letters = len(text.replace(" ", ""))
    melody = [float(voiced.mean()), float(voiced.std())] if len(voiced) else [0.0, 0.0]
    voice = float(np.mean(f0 > 0)) if len(f0) else 0.0
    means = frames[:, 1:].mean(axis=0).tolist()
    rate = float(np.log(max(letters, 1) / spoken_seconds(frames)))
    return [*melody, voice, rate, *means]


def tell(
    originals: Features, labels: Mapping[str, str], *others: Features
) -> list[dict[str, str]] | None:
    """The label that each original is told to have, and each of its copies in `others`.

    None where there are fewer than two labels, or less than five originals of one.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    sizes = Counter(labels[name] for name in originals)
    if len(sizes) < 2 or min(sizes.values()) < FOLDS:
        return None
    # In turn by label: every fold has as many of each.
    order = sorted(originals, key=lambda name: (labels[name], name))
    fold = {name: turn % FOLDS for turn, name in enumerate(order)}
    told: list[dict[str, str]] = [{} for _ in (originals, *others)]
    for held in range(FOLDS):
        learned = [name for name in originals if fold[name] != held]
        judge = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2_000))
        judge.fit([originals[name] for name in learned], [labels[name] for name in learned])
        for side, found in zip((originals, *others), told, strict=True):
            names = [name for name in side if fold[name] == held]
            if names:
                answers = judge.predict([side[name] for name in names]).tolist()
                found.update(zip(names, map(str, answers), strict=True))
    return told


def centered(features: Features, groups: Mapping[str, str], origin: Features) -> Features:
    """Melody and rate, less the mean of their group (a voice) among the `origin`."""
    means = {
        group: np.mean([origin[name] for name in origin if groups[name] == group], axis=0)
        for group in {groups[name] for name in origin}
    }
    return {
        name: (np.array(of) - means[groups[name]])[:MELODY].tolist()
        for name, of in features.items()
    }
