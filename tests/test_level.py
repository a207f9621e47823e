"""Leveling takes from features who speaks and leaves what is said."""

import numpy as np
import pytest
import torch

from spirit.speech.level import Level
from spirit.speech.purity import information, joint_counts
from spirit.speech.quantizer import KMeans

CHANNELS, SOUNDS = 6, 5


def record(rng: np.random.Generator, frames: int, map_: np.ndarray, shift: np.ndarray):
    """Frames of a speaker whose sounds are those of all, turned, stretched and moved."""
    sounds = np.random.default_rng(7).normal(0, 3, (SOUNDS, CHANNELS))
    said = rng.integers(SOUNDS, size=frames)
    plain = sounds[said] + rng.normal(0, 0.3, (frames, CHANNELS))
    return (plain @ map_ + shift).astype(np.float32), said


@pytest.fixture(scope="module")
def corpus():
    rng = np.random.default_rng(0)
    rows, said, speakers = [], [], []
    for name, size in (("a", 1.0), ("b", 0.4)):
        # A symmetric map keeps directions, as whitening does; a turned one could not be undone.
        half = rng.normal(0, 0.15, (CHANNELS, CHANNELS))
        map_ = size * (np.eye(CHANNELS) + half + half.T)
        shift = rng.normal(0, 20, CHANNELS)
        for _ in range(4):
            wave, sounds = record(rng, 200, map_, shift)
            rows.append(wave)
            said.append(sounds)
            speakers.append(name)
    return rows, np.concatenate(said), speakers


def units(rows, said, speakers) -> tuple[float, float]:
    """How much as many clusters as sounds tell about sounds and about speakers."""
    table = np.concatenate(rows)
    found = KMeans.fit(table, SOUNDS, seed=0).units(torch.from_numpy(table))
    names = np.repeat([sorted(set(speakers)).index(s) for s in speakers], [len(r) for r in rows])
    return information(joint_counts(found, said)), information(joint_counts(found, names))


def test_clusters_of_leveled_features_tell_what_is_said_and_not_who_speaks(corpus):
    rows, said, speakers = corpus
    level = Level.fit(rows, speakers)
    leveled = [level(torch.from_numpy(r), s).numpy() for r, s in zip(rows, speakers, strict=True)]
    sounds, who = units(rows, said, speakers)
    sounds_leveled, who_leveled = units(leveled, said, speakers)
    assert who > 0.5
    assert who_leveled < 0.05
    assert sounds_leveled > sounds + 0.1


def test_all_speakers_get_one_mean_and_covariance(corpus):
    rows, _, speakers = corpus
    level = Level.fit(rows, speakers)
    tables = [
        np.concatenate(
            [level(torch.from_numpy(r), s) for r, s in zip(rows, speakers, strict=True) if s == who]
        )
        for who in ("a", "b")
    ]
    assert np.allclose(tables[0].mean(0), tables[1].mean(0), atol=0.01)
    assert np.allclose(np.cov(tables[0].T), np.cov(tables[1].T), atol=0.4)


def test_a_speaker_hardly_heard_shares_the_map_of_the_others(corpus):
    rows, _, speakers = corpus
    hardly = np.random.default_rng(1).normal(0, 1, (CHANNELS, CHANNELS)).astype(np.float32)
    level = Level.fit([*rows, hardly], [*speakers, "c"])
    row = torch.from_numpy(hardly)
    assert torch.equal(level(row, "c"), level(row, "never heard"))
    assert torch.equal(level(row, "c"), level(row, ""))
    assert not torch.allclose(level(row, "c"), level(row, "a"))
