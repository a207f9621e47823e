"""K-means over a stream: as good as with everything held, and none of it held."""

import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from spirit.speech import passes
from spirit.speech.discriminant import Scatter, discriminant
from spirit.speech.passes import refine
from spirit.speech.quantizer import KMeans

UNITS, BLOCK = 30, 200


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """Frames without clear clusters, as those of speech: what k-means finds depends on all."""
    rng = np.random.default_rng(0)
    turn = rng.standard_normal((6, 6))
    return (np.tanh(rng.standard_normal((6_000, 6)) * 1.5) @ turn).astype(np.float32)


def error(points: np.ndarray, quantizer: KMeans) -> float:
    centroids = quantizer.centroids[torch.from_numpy(quantizer.units(torch.from_numpy(points)))]
    return float((torch.from_numpy(points) - centroids).square().sum(1).mean())


def blocks_of(points: np.ndarray, stop_at: int = -1):
    """Blocks of 200 frames; block number `stop_at`, counted over all passes, never comes."""
    left = stop_at

    def blocks(first: int) -> Iterator[np.ndarray]:
        nonlocal left
        for start in range(first * BLOCK, len(points), BLOCK):
            if left == 0:
                raise KeyboardInterrupt
            left -= 1
            yield points[start : start + BLOCK]

    return blocks


def cluster(points: np.ndarray, state, blocks=None, count: int = 4, **changes):
    def begin() -> KMeans:
        return KMeans.fit(points[:600], UNITS, seed=0)

    blocks = blocks or blocks_of(points)
    given = {"passes": count, "state": state, "seal": "a", **changes}
    return refine(begin, blocks, len(points) // BLOCK, **given)


def test_a_stream_is_clustered_within_two_per_cent_of_all_at_once(frames, tmp_path):
    at_once = error(frames, KMeans.fit(frames, UNITS, seed=0))
    sample = error(frames, KMeans.fit(frames[:600], UNITS, seed=0))
    quantizer, errors = cluster(frames, tmp_path / "passes")
    assert sample > 1.05 * at_once
    assert error(frames, quantizer) < 1.02 * at_once
    assert errors == sorted(errors, reverse=True)
    # What a pass met is told; after the last one it is a little better still.
    assert error(frames, quantizer) <= errors[-1] < 1.03 * at_once


def test_at_most_two_blocks_are_held_at_a_time(frames, tmp_path):
    alive: list[weakref.ref] = []
    peak = 0

    def watched(first: int) -> Iterator[np.ndarray]:
        nonlocal peak
        for rows in blocks_of(frames)(first):
            own = rows.copy()
            alive.append(weakref.ref(own))
            held = [kept for ref in alive if (kept := ref()) is not None]
            peak = max(peak, sum(map(len, held)))
            del held
            yield own
            del own

    cluster(frames, tmp_path / "passes", watched)
    assert len(alive) == 4 * len(frames) // BLOCK
    assert peak <= 2 * BLOCK


@pytest.mark.parametrize(("stop_at", "every"), [(0, 1e9), (7, 0.0), (40, 0.0), (40, 1e9)])
def test_an_interrupted_clustering_ends_with_the_same_centroids(
    frames, tmp_path, monkeypatch, stop_at, every
):
    """Saved after every block, or between passes only; stopped in the first and later passes."""
    whole, errors = cluster(frames, tmp_path / "whole")
    monkeypatch.setattr(passes, "SAVE_SECONDS", every)
    with pytest.raises(KeyboardInterrupt):
        cluster(frames, tmp_path / "passes", blocks_of(frames, stop_at))
    again, told = cluster(frames, tmp_path / "passes")
    assert torch.equal(again.centroids, whole.centroids)
    assert told == errors


def test_a_finished_pass_is_not_heard_again(frames, tmp_path):
    first, _ = cluster(frames, tmp_path / "passes", count=2)
    same, _ = cluster(frames, tmp_path / "passes", blocks_of(frames, 0), count=2)
    assert torch.equal(first.centroids, same.centroids)


def test_the_state_of_another_clustering_or_of_none_is_left(frames, tmp_path, capsys):
    whole, _ = cluster(frames, tmp_path / "passes")
    (tmp_path / "torn").write_bytes(b"not tensors")
    for name, seal in (("passes", "b"), ("torn", "a")):
        again, _ = cluster(frames, tmp_path / name, seal=seal)
        assert torch.equal(again.centroids, whole.centroids)
        assert "starting anew" in capsys.readouterr().err


def test_a_cluster_without_frames_takes_half_of_the_worst_one(tmp_path):
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10], [9, 9]], np.float32)
    spread = np.array([3.0, 0.1, 0.1, 0.1])
    labels = rng.integers(4, size=4_000)
    points = centres[labels] + rng.standard_normal((4_000, 2)) * spread[labels, None]
    begin = KMeans(torch.from_numpy(np.concatenate([centres, [[500, 500]]]).astype(np.float32)))
    quantizer, _ = refine(
        lambda: begin,
        blocks_of(points.astype(np.float32)),
        20,
        passes=3,
        state=tmp_path / "passes",
        seal="a",
    )
    assert len(np.unique(quantizer.units(torch.from_numpy(points.astype(np.float32))))) == 5
    near = quantizer.centroids.norm(dim=1) < 5
    assert near.sum() == 2


def test_discriminants_of_a_stream_are_those_of_all_frames():
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 5, size=900).astype(np.int32)
    means = rng.normal(0, 2, (6, 8))
    rows = (means[labels] + rng.standard_normal((900, 8)) + 100).astype(np.float32)
    scatter = Scatter()
    order = np.argsort(labels, kind="stable")  # the classes come one after another
    for part in np.array_split(order, 11):
        scatter.add(rows[part], labels[part])
    whole, streamed = discriminant(rows, labels), scatter.directions()
    # The sign of a direction means nothing.
    np.testing.assert_allclose(np.abs(streamed), np.abs(whole), rtol=1e-3, atol=1e-5)
    with pytest.raises(ValueError, match="does not say which phones"):
        Scatter().directions()
