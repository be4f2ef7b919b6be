"""Which points lie together? Weighted k-means, all starts at once."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

SAMPLE = 20_000  # more points than this: the centres are found on a sample, then moved by all points
ITERATIONS_ON_ALL = 3
TOLERANCE = 1e-4  # relative fall of the inertia below which the iteration stops
POINTS_AT_ONCE = 1 << 16


def k_means(
    points: Float[np.ndarray, "points dimensions"],
    weights: Float[np.ndarray, " points"],
    n_clusters: int,
    *,
    n_starts: int,
    n_iterations: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, " points"]:
    """Cluster of each point: the best of `n_starts` starts, run side by side as one matrix product.

    No cluster is empty.

    Args:
        points: Coordinates, float32; at least as many points as clusters.
        weights: > 0, float32.
        n_clusters: Number of clusters.
        n_starts: Number of k-means++ starts.
        n_iterations: At most so many steps from each start.
        rng: Draws the starts, and the sample of points where there are very many.

    Source: Lloyd 1982; Arthur & Vassilvitskii 2007 (k-means++, the greedy form of its section 7).
    """
    some, weight = points, weights
    if len(points) > SAMPLE:
        chosen = np.sort(rng.choice(len(points), SAMPLE, replace=False))
        some, weight = points[chosen], weights[chosen]
    centres = _lloyd(some, weight, _starts(some, weight, n_clusters, n_starts, rng), n_iterations)
    centres = centres[[int(_inertia(some, weight, centres).argmin())]]
    if len(points) > SAMPLE:
        centres = _lloyd(points, weights, centres, ITERATIONS_ON_ALL)
    parts = [_scores(part, centres)[0].argmax(axis=0) for part in _parts(points)]
    return _without_empty_clusters(np.concatenate(parts), n_clusters)


def _parts(points: Float[np.ndarray, "points dimensions"]) -> list[Float[np.ndarray, "some dimensions"]]:
    return [points[start : start + POINTS_AT_ONCE] for start in range(0, len(points), POINTS_AT_ONCE)]


def _scores(
    points: Float[np.ndarray, "points dimensions"], centres: Float[np.ndarray, "starts clusters dimensions"]
) -> Float[np.ndarray, "starts clusters points"]:
    """x.c - c.c / 2 for each centre c and point x: largest for the nearest centre."""
    flat = centres.reshape(-1, centres.shape[2])
    scores = flat @ points.T
    scores -= 0.5 * np.square(flat).sum(axis=1, keepdims=True)
    by_start: np.ndarray = scores.reshape(*centres.shape[:2], len(points))
    return by_start


def _inertia(
    points: Float[np.ndarray, "points dimensions"],
    weights: Float[np.ndarray, " points"],
    centres: Float[np.ndarray, "starts clusters dimensions"],
) -> Float[np.ndarray, " starts"]:
    """Weighted sum of squared distances to the nearest centre."""
    total = float(weights @ np.square(points).sum(axis=1))
    inertia: np.ndarray = total - 2 * (_scores(points, centres).max(axis=1) @ weights)
    return inertia


def _starts(
    points: Float[np.ndarray, "points dimensions"],
    weights: Float[np.ndarray, " points"],
    n_clusters: int,
    n_starts: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "starts clusters dimensions"]:
    """Greedy k-means++ centres.

    Each next centre is the best of a few points drawn by weight times squared distance to the nearest centre so far.
    """
    n_tries = 2 + int(np.log(n_clusters))
    uniform = rng.random((n_clusters, n_starts, n_tries))
    across = np.ascontiguousarray(points.T)  # (dimensions, points)
    norms = np.square(points).sum(axis=1)
    centres = np.empty((n_starts, n_clusters, points.shape[1]), dtype=points.dtype)
    distance = np.full((n_starts, 1, len(points)), np.inf, dtype=points.dtype)
    chance = np.broadcast_to(weights, (n_starts, len(points)))
    every_start = np.arange(n_starts)
    for index in range(n_clusters):
        cumulative = np.cumsum(chance, axis=1, dtype=np.float64)
        found = [np.searchsorted(c, u * c[-1]) for c, u in zip(cumulative, uniform[index], strict=True)]
        drawn = np.minimum(np.stack(found), len(points) - 1)  # (starts, tries)
        tried = points[drawn.ravel()]
        new = (-2 * tried) @ across
        new += norms
        new += norms[drawn.ravel(), None]
        new = np.minimum(distance, np.maximum(new, 0, out=new).reshape(n_starts, n_tries, -1))
        best = (new @ weights).argmin(axis=1)
        distance = new[every_start, best][:, None]
        centres[:, index] = points[drawn[every_start, best]]
        chance = distance[:, 0] * weights
    return centres


def _lloyd(
    points: Float[np.ndarray, "points dimensions"],
    weights: Float[np.ndarray, " points"],
    centres: Float[np.ndarray, "starts clusters dimensions"],
    n_iterations: int,
) -> Float[np.ndarray, "starts clusters dimensions"]:
    previous = np.full(len(centres), np.inf)
    for _ in range(n_iterations):
        sums = np.zeros((*centres.shape[:2], centres.shape[2] + 1), dtype=points.dtype)
        nearest = np.zeros(len(centres))
        for part, weight in zip(_parts(points), _parts(weights[:, None]), strict=True):
            scores = _scores(part, centres)
            best = scores.max(axis=1, keepdims=True)
            is_member = (scores == best).astype(points.dtype)  # a point between two equal centres counts for both
            sums += is_member @ np.concatenate([part * weight, weight], axis=1)
            nearest += (best[:, 0] @ weight)[:, 0]
        mass = sums[..., -1:]
        centres = np.where(mass > 0, sums[..., :-1] / np.maximum(mass, np.finfo(points.dtype).tiny), centres)
        inertia = -2 * nearest  # but for the points' own squares, which stay the same
        if np.all(previous - inertia <= TOLERANCE * np.abs(inertia)):
            break
        previous = inertia
    return centres


def _without_empty_clusters(labels: Int[np.ndarray, " points"], n_clusters: int) -> Int[np.ndarray, " points"]:
    """Give each empty cluster one point of the largest cluster (so with fewer distinct points than clusters)."""
    counts = np.bincount(labels, minlength=n_clusters)
    for empty in np.flatnonzero(counts == 0):
        largest = int(counts.argmax())
        labels[np.flatnonzero(labels == largest)[-1]] = empty
        counts[largest] -= 1
        counts[empty] = 1
    return labels
