"""Voices and styles told apart: by what was learned from other recordings alone."""

import numpy as np
import pytest

from spirit.eval.telling import centered, describe, tell
from spirit.units import SAMPLE_RATE


def test_what_differs_is_told_apart_in_originals_and_copies():
    rng = np.random.default_rng(0)
    labels = {f"u{n}": "abc"[n % 3] for n in range(60)}
    places = {"a": 0.0, "b": 5.0, "c": 10.0}
    sides = [
        {name: [places[label], *rng.normal(size=3)] for name, label in labels.items()}
        for _ in range(2)
    ]
    copies = {name: sides[1][name] for name in list(labels)[:30]}
    told = tell(sides[0], labels, copies)
    assert told is not None
    assert told[0] == labels
    assert told[1] == {name: labels[name] for name in copies}


def test_nothing_is_told_of_a_recording_by_having_learned_it():
    """With more features than recordings any labels can be learned by heart."""
    rng = np.random.default_rng(1)
    labels = {f"u{n}": "ab"[n % 2] for n in range(60)}
    noise = {name: rng.normal(size=200).tolist() for name in labels}
    told = tell(noise, labels, noise)
    assert told is not None
    right = np.mean([told[1][name] == labels[name] for name in labels])
    assert 0.25 < right < 0.75
    assert told[0] == told[1]


def test_too_few_of_a_kind_are_not_told_apart():
    features = {f"u{n}": [float(n)] for n in range(8)}
    assert tell(features, dict.fromkeys(features, "a")) is None
    assert tell(features, {name: "ab"[n > 3] for n, name in enumerate(features)}) is None


def test_centered_features_are_those_beside_the_own_group():
    groups = {"a1": "a", "a2": "a", "b1": "b"}
    origin = {"a1": [1.0, 2.0], "a2": [3.0, 2.0], "b1": [10.0, 0.0]}
    found = centered({"a1": [4.0, 2.0], "b1": [11.0, 1.0]}, groups, origin)
    assert found == {"a1": [2.0, 0.0], "b1": [1.0, 1.0]}
    long = {"a1": [float(n) for n in range(17)]}
    assert centered(long, groups, long) == {"a1": [0.0] * 4}  # melody and rate, no cepstra


def test_a_description_holds_melody_voicing_and_rate():
    time = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tone = 0.3 * np.sin(2 * np.pi * 200 * time)
    wave = np.concatenate([np.zeros(SAMPLE_RATE), tone]).astype(np.float32)
    f0 = np.array([0.0] * 200 + [100.0, 400.0] * 100)
    mean, spread, voiced, rate, *means = describe(wave, f0, "ten letters")
    assert mean == pytest.approx(np.log(200))
    assert spread == pytest.approx(np.log(2))
    assert voiced == pytest.approx(0.5)
    assert np.exp(rate) == pytest.approx(10, rel=0.1)
    assert len(means) == 13
    nothing = describe(np.zeros(1, np.float32), np.zeros(1), "ten letters")
    assert np.isfinite(nothing).all()
