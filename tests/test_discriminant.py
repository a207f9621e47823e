"""Discriminants turn features towards what tells phones apart."""

import numpy as np
import pytest
import torch

from spirit.speech.discriminant import discriminant, phone_states
from spirit.speech.purity import information, joint_counts
from spirit.speech.quantizer import KMeans
from spirit.units import Word

PHONES = 5


@pytest.fixture(scope="module")
def frames() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames whose phone is told by three quiet channels, and their speaker by five loud ones."""
    rng = np.random.default_rng(0)
    phones, speakers = rng.integers(PHONES, size=2_000), rng.integers(4, size=2_000)
    quiet = rng.normal(0, 2, (PHONES, 3))[phones] + rng.normal(0, 0.3, (2_000, 3))
    loud = rng.normal(0, 8, (4, 5))[speakers] + rng.normal(0, 1, (2_000, 5))
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    rows = (np.concatenate([quiet, loud], 1) @ turn).astype(np.float32)
    return rows, phones.astype(np.int32), speakers.astype(np.int32)


def test_clusters_along_discriminants_tell_phones_and_not_speakers(frames):
    rows, phones, speakers = frames
    plain = KMeans.fit(rows, PHONES, seed=0)
    turned = KMeans.fit(rows, PHONES, seed=0, projection=discriminant(rows, phones))
    told = {
        name: [
            information(joint_counts(quantizer.units(torch.from_numpy(rows)), of))
            for of in (phones, speakers)
        ]
        for name, quantizer in (("plain", plain), ("turned", turned))
    }
    assert told["plain"][0] < 0.2 < 0.7 < told["plain"][1]
    assert told["turned"][1] < 0.1 < 0.9 < told["turned"][0]


def test_a_phone_varies_alike_in_all_directions_before_they_are_weighed(frames):
    rows, phones, _ = frames
    directions = discriminant(rows, phones)
    assert directions.shape == (8, PHONES - 1)
    turned = rows @ directions
    within = np.mean([np.cov(turned[phones == phone].T) for phone in range(PHONES)], 0)
    spread = np.diag(within)
    # Three directions tell phones and keep most of the unit variance; the fourth tells none.
    assert all(spread[:3] > 0.5)
    assert all(spread[:3] <= 1)
    assert spread[3] < 0.1
    assert np.allclose(within - np.diag(spread), 0, atol=0.05)


def test_frames_of_unknown_phones_change_nothing(frames):
    rows, phones, _ = frames
    more = np.concatenate([rows, np.full((50, 8), 1e4, np.float32)])
    labels = np.concatenate([phones, np.full(50, -1, np.int32)])
    assert np.array_equal(discriminant(more, labels), discriminant(rows, phones))


def test_a_corpus_without_phones_is_named(frames):
    rows, phones, _ = frames
    with pytest.raises(ValueError, match="does not say which phones are spoken"):
        discriminant(rows, np.full_like(phones, -1))


def test_states_are_the_thirds_of_a_phone():
    phones = [Word("a", 0, 1_920), Word("b", 1_920, 3_840)]
    states = phone_states([phones, []], [8, 2], 640)
    assert states.tolist() == [0, 1, 2, 3, 4, 5, -1, -1, -1, -1]


def test_a_projection_is_saved_with_its_centroids(frames, tmp_path):
    rows, phones, _ = frames
    quantizer = KMeans.fit(rows, 9, seed=0, projection=discriminant(rows, phones))
    quantizer.save(tmp_path / "units.safetensors")
    again = KMeans.load(tmp_path / "units.safetensors")
    assert quantizer.channels == again.channels == 8
    assert again.centroids.shape == (9, PHONES - 1)
    table = torch.from_numpy(rows)
    assert np.array_equal(again.units(table), quantizer.units(table))
    assert np.array_equal(again.to(torch.device("cpu")).units(table), quantizer.units(table))
