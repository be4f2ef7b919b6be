"""Which points lie together? Weighted k-means: all starts, and several sets of points, at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from modscope.graph.stack import Array, as_numpy, namespace_of

SAMPLE = 20_000  # more points than this: the centres are found on a sample, then moved by all points
ITERATIONS_ON_ALL = 3
TOLERANCE = 1e-4  # relative fall of the inertia below which the iteration stops
POINTS_AT_ONCE = 1 << 16


def k_means(
    points: Array,
    weights: Array,
    n_clusters: int,
    *,
    n_starts: int,
    n_iterations: int,
    rngs: Sequence[np.random.Generator],
    n_followed: int | None = None,
) -> Int[np.ndarray, "sets points"]:
    """Cluster of each point: the best of `n_starts` starts, run side by side as one matrix product.

    The sets of points have no part in each other. No cluster is empty.

    Args:
        points: Coordinates, `(sets, points, dimensions)`, in numpy or torch; at least as many points as clusters.
        weights: > 0, `(sets, points)`.
        n_clusters: Number of clusters.
        n_starts: Number of k-means++ starts.
        n_iterations: At most so many steps from each start that is followed.
        rngs: For each set: draws the starts, and the sample of points where there are very many.
        n_followed: Number of starts from which steps are made, those of least inertia; None: all.

    Source: Lloyd 1982; Arthur & Vassilvitskii 2007 (k-means++, the greedy form of its section 7).
    """
    some, weight = points, weights
    if points.shape[1] > SAMPLE:
        chosen = np.stack([np.sort(rng.choice(points.shape[1], SAMPLE, replace=False)) for rng in rngs])
        some, weight = _rows(points, chosen), _rows(weights[..., None], chosen)[..., 0]
    centres = _starts(some, weight, n_clusters, n_starts, rngs)
    if n_followed is not None and n_followed < n_starts:
        centres = _nearest(some, weight, centres, n_followed)
    centres = _nearest(some, weight, _lloyd(some, weight, centres, n_iterations), 1)
    if points.shape[1] > SAMPLE:
        centres = _lloyd(points, weights, centres, ITERATIONS_ON_ALL)
    parts = [as_numpy(_scores(part, centres)[:, 0].argmax(axis=1)) for part in _parts(points)]
    labels = np.concatenate(parts, axis=1)
    for own in labels:
        _fill_empty_clusters(own, n_clusters)
    return labels


def _rows(array: Any, chosen: Int[np.ndarray, "sets chosen"]) -> Any:
    """Some rows of each set: `(sets, chosen, ...)`."""
    return array[np.arange(len(chosen))[:, None], chosen]


def _parts(points: Any) -> list[Any]:
    return [points[:, start : start + POINTS_AT_ONCE] for start in range(0, points.shape[1], POINTS_AT_ONCE)]


def _scores(points: Any, centres: Any) -> Any:
    """x.c - c.c / 2 for each centre c and point x: largest for the nearest; `(sets, starts, clusters, points)`."""
    n_sets, n_starts, n_clusters, n_dimensions = centres.shape
    flat = centres.reshape(n_sets, n_starts * n_clusters, n_dimensions)
    scores = flat @ points.swapaxes(1, 2)
    scores -= 0.5 * (flat * flat).sum(axis=2)[..., None]
    return scores.reshape(n_sets, n_starts, n_clusters, points.shape[1])


def _nearest(points: Any, weights: Any, centres: Any, n_kept: int) -> Any:
    """The centres of the `n_kept` starts of least inertia."""
    if centres.shape[1] <= n_kept:
        return centres
    # the sum over points of the nearest centre's score: the larger, the smaller the inertia
    best = namespace_of(points).amax(_scores(points, centres), axis=2)
    nearness = as_numpy((best @ weights[..., None])[..., 0])
    return _rows(centres, np.argsort(-nearness, axis=1, kind="stable")[:, :n_kept])


def _starts(points: Any, weights: Any, n_clusters: int, n_starts: int, rngs: Sequence[np.random.Generator]) -> Any:
    """Greedy k-means++ centres, `(sets, starts, clusters, dimensions)`.

    Each next centre is the best of a few points drawn by weight times squared distance to the nearest centre so far.
    """
    xp = namespace_of(points)
    n_sets, n_points = points.shape[:2]
    n_tries = 2 + int(np.log(n_clusters))
    uniform = np.stack([rng.random((n_clusters, n_starts, n_tries)) for rng in rngs], axis=1)
    norms = (points * points).sum(axis=2)[..., None]
    # |x - y|^2 = (x, |x|^2, 1) . (-2 y, 1, |y|^2)
    across = xp.concatenate([points, norms, xp.ones_like(norms)], axis=2).swapaxes(1, 2)
    by_distance = xp.concatenate([-2 * points, xp.ones_like(norms), norms], axis=2)
    every_set, every_start = np.ogrid[:n_sets, :n_starts]
    chosen: list[Any] = []
    distance: Any = None
    for step in range(n_clusters):
        chance = weights[:, None] if distance is None else distance * weights[:, None]
        drawn = _drawn(chance, uniform[step])  # (sets, starts, tries)
        new = (_rows(by_distance, drawn.reshape(n_sets, -1)) @ across).reshape(n_sets, n_starts, n_tries, n_points)
        new = new.clip(0) if distance is None else xp.minimum(new, distance[:, :, None]).clip(0)
        best = as_numpy((new @ weights[:, None, :, None])[..., 0]).argmin(axis=2)
        distance = new[every_set, every_start, best]
        chosen.append(_rows(points, drawn[every_set, every_start, best]))
    return xp.stack(chosen, axis=2)


def _drawn(chance: Any, uniform: Float[np.ndarray, "sets starts tries"]) -> Int[np.ndarray, "sets starts tries"]:
    """Points drawn with these chances, `(sets, starts, points)`; one row of chances can serve all starts."""
    xp = namespace_of(chance)
    n_sets, n_rows, n_points = chance.shape
    cumulative = xp.cumsum(chance, axis=2, dtype=xp.float64)
    cumulative = cumulative / cumulative[..., -1:].clip(np.finfo(np.float64).tiny)
    # one search for all: row i of the chances lies between i and i + 1
    offset = np.arange(n_sets * n_rows, dtype=np.float64).reshape(n_sets, n_rows, 1)
    shifted = (cumulative + _like(offset, cumulative)).reshape(-1)
    found = as_numpy(xp.searchsorted(shifted, _like(uniform + offset, cumulative)))
    within: np.ndarray = np.clip(found - offset.astype(np.int64) * n_points, 0, n_points - 1)
    return within


def _lloyd(points: Any, weights: Any, centres: Any, n_iterations: int) -> Any:
    xp = namespace_of(points)
    n_sets, n_starts, n_clusters, n_dimensions = centres.shape
    previous = np.full((n_sets, n_starts), np.inf)
    is_open = np.ones(n_sets, dtype=bool)
    weighed = [
        xp.concatenate([part * weight[..., None], weight[..., None]], axis=2)
        for part, weight in zip(_parts(points), _parts(weights), strict=True)
    ]
    for _ in range(n_iterations):
        sums: Any = 0
        nearness: Any = 0
        for part, weight, own in zip(_parts(points), _parts(weights), weighed, strict=True):
            scores = _scores(part, centres)
            best = xp.amax(scores, axis=2, keepdims=True)
            # a point between two equal centres counts for both
            is_member = xp.asarray(scores == best, dtype=points.dtype)
            sums = sums + is_member.reshape(n_sets, n_starts * n_clusters, -1) @ own
            nearness = nearness + (best[:, :, 0] @ weight[..., None])[..., 0]
        sums = sums.reshape(n_sets, n_starts, n_clusters, n_dimensions + 1)
        mass = sums[..., -1:]
        moved = xp.where(mass > 0, sums[..., :-1] / mass.clip(np.finfo(np.float32).tiny), centres)
        centres = moved if is_open.all() else xp.where(_like(is_open[:, None, None, None], moved), moved, centres)
        inertia = -2 * as_numpy(nearness)  # but for the points' own squares, which stay the same
        is_open &= np.any(previous - inertia > TOLERANCE * np.abs(inertia), axis=1)
        if not is_open.any():
            break
        previous = inertia
    return centres


def _like(array: np.ndarray, other: Any) -> Any:
    """The array where the other one is."""
    return array if isinstance(other, np.ndarray) else torch.from_numpy(array).to(other.device)


def _fill_empty_clusters(labels: Int[np.ndarray, " points"], n_clusters: int) -> None:
    """Give each empty cluster one point of the largest cluster (so with fewer distinct points than clusters)."""
    counts = np.bincount(labels, minlength=n_clusters)
    for empty in np.flatnonzero(counts == 0):
        largest = int(counts.argmax())
        labels[np.flatnonzero(labels == largest)[-1]] = empty
        counts[largest] -= 1
        counts[empty] = 1
