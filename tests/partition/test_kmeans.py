import numpy as np
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

import modscope.partition.kmeans as kmeans
from modscope.partition.kmeans import k_means


def blobs(n_points: int, n_clusters: int, seed: int = 0, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_clusters, n_points)
    centres = rng.standard_normal((n_clusters, 4)) * 3
    return (centres[labels] + spread * rng.standard_normal((n_points, 4))).astype(np.float32), labels


def inertia(points: np.ndarray, weights: np.ndarray, labels: np.ndarray) -> float:
    total = 0.0
    for cluster in np.unique(labels):
        inside = labels == cluster
        centre = np.average(points[inside], axis=0, weights=weights[inside])
        total += (weights[inside] * ((points[inside] - centre) ** 2).sum(axis=1)).sum()
    return total


def found(points: np.ndarray, weights: np.ndarray, k: int, **options: int) -> np.ndarray:
    settings = {"n_starts": 5, "n_iterations": 30} | options
    return k_means(points[None], weights[None], k, rngs=[np.random.default_rng(1)], **settings)[0]


def test_blobs_are_found():
    points, labels = blobs(300, 5)
    assert adjusted_rand_score(labels, found(points, np.ones(300, np.float32), 5)) == 1


def test_the_weighted_inertia_is_as_low_as_scikit_learns():
    points, _ = blobs(400, 6, spread=2.0)
    weights = np.random.default_rng(0).exponential(size=400).astype(np.float32)
    theirs = KMeans(6, n_init=5, random_state=0).fit(points, sample_weight=weights)
    assert inertia(points, weights, found(points, weights, 6)) <= 1.02 * theirs.inertia_


def test_a_large_set_is_clustered_from_a_sample(monkeypatch):
    points, labels = blobs(5000, 5)
    monkeypatch.setattr(kmeans, "SAMPLE", 300)
    monkeypatch.setattr(kmeans, "POINTS_AT_ONCE", 999)
    assert adjusted_rand_score(labels, found(points, np.ones(5000, np.float32), 5)) == 1


def test_fewer_distinct_points_than_clusters_leave_no_cluster_empty():
    points = np.repeat(np.eye(3, 4, dtype=np.float32), 5, axis=0)
    assert len(np.unique(found(points, np.ones(15, np.float32), 6))) == 6


def test_a_weight_of_two_counts_like_a_point_twice():
    points, _ = blobs(60, 3, spread=1.5)
    weights = np.ones(60, np.float32)
    weights[:20] = 2
    doubled = np.concatenate([points, points[:20]])
    labels = found(points, weights, 3)
    assert inertia(points, weights, labels) <= 1.01 * inertia(
        doubled, np.ones(80), found(doubled, np.ones(80, np.float32), 3)
    )
