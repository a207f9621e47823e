"""K-means units, and the measures that say what units are worth."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spirit.speech.purity import bitrate, information, joint_counts, phone_labels, purity
from spirit.speech.quantizer import KMeans
from spirit.units import Word


@pytest.fixture(scope="module")
def clouds() -> tuple[np.ndarray, np.ndarray]:
    """Points around six centres far apart, and which centre each belongs to."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((6, 5)) * 20
    labels = rng.integers(6, size=600).astype(np.int32)
    return (centres[labels] + rng.standard_normal((600, 5))).astype(np.float32), labels


def test_clusters_are_found(clouds):
    points, labels = clouds
    units = KMeans.fit(points, 24, seed=1).units(torch.from_numpy(points))
    assert information(joint_counts(units, labels)) == pytest.approx(1.0)
    assert purity(joint_counts(units, labels)) == 1.0


def test_the_unit_is_the_nearest_centroid(clouds):
    points, _ = clouds
    quantizer = KMeans.fit(points, 40, seed=0)
    distance = np.linalg.norm(points[:, None] - quantizer.centroids.numpy(), axis=2)
    np.testing.assert_array_equal(quantizer.units(torch.from_numpy(points)), distance.argmin(1))


def test_the_same_seed_gives_the_same_centroids(clouds):
    points, _ = clouds
    first, second = (KMeans.fit(points, 10, seed=3).centroids for _ in range(2))
    assert torch.equal(first, second)


def test_saved_centroids_come_back_exactly(clouds, tmp_path):
    quantizer = KMeans.fit(clouds[0], 8, seed=0)
    quantizer.save(tmp_path / "units.safetensors")
    again = KMeans.load(tmp_path / "units.safetensors")
    assert torch.equal(again.centroids, quantizer.centroids)
    assert len(again) == 8


def test_bad_quantizers_are_one_clear_line(tmp_path):
    with pytest.raises(ValueError, match="make it with `spirit fit units`"):
        KMeans.load(tmp_path / "units.safetensors")
    (tmp_path / "units.safetensors").write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="is not a quantizer"):
        KMeans.load(tmp_path / "units.safetensors")
    with pytest.raises(ValueError, match="3 frames are too few for 4 units"):
        KMeans.fit(np.zeros((3, 2), np.float32), 4, seed=0)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=50), st.integers(0, 9))
def test_information_is_a_share_and_ignores_how_units_are_numbered(labels, seed):
    rng = np.random.default_rng(seed)
    labels = np.array(labels, np.int32)
    units = rng.integers(8, size=len(labels)).astype(np.int32)
    share = information(joint_counts(units, labels))
    assert -1e-9 <= share <= 1 + 1e-9
    renamed = rng.permutation(8).astype(np.int32)[units]
    assert information(joint_counts(renamed, labels)) == pytest.approx(share)


def test_units_that_know_nothing_have_no_information():
    labels = np.tile(np.arange(4, dtype=np.int32), 10)
    units = np.repeat(np.arange(10, dtype=np.int32), 4)
    assert information(joint_counts(units, labels)) == pytest.approx(0.0, abs=1e-12)


def test_phones_are_read_at_the_middle_of_a_frame_and_unknown_frames_do_not_count():
    phones = [Word("pau", 0, 960), Word("ah", 960, 1_700)]
    names: dict[str, int] = {}
    labels = phone_labels(phones, names, 4, 640)
    assert names == {"pau": 0, "ah": 1}
    assert labels.tolist() == [0, 1, 1, -1]  # middles at 320, 960, 1600, 2240
    table = joint_counts(np.array([2, 0, 0, 1], np.int32), labels)
    assert table.sum() == 3
    assert purity(table) == 1.0


def test_bitrate_counts_runs_once():
    rows = [np.array([3, 3, 3, 5], np.int32), np.array([5, 5, 3, 3], np.int32)]
    assert bitrate(rows, seconds=2.0) == pytest.approx(2.0)  # four units of one bit in two seconds
