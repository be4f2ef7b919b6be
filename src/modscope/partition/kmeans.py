"""Which points lie together? Weighted k-means, all starts at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

SAMPLE = 20_000  # more points than this: the centres are found on a sample, then moved by all points
MAX_ITERATIONS = 30
ITERATIONS_ON_ALL = 3
TOLERANCE = 1e-4  # relative fall of the inertia below which the iteration stops


@dataclass(frozen=True, eq=False)
class Clustering:
    """Cluster of each point, one row per start, best (lowest inertia) start first."""

    labels: Int[np.ndarray, "starts points"]
    inertia: Float[np.ndarray, " starts"]


def k_means(
    points: Float[Tensor, "points dimensions"],
    weights: Float[Tensor, " points"],
    n_clusters: int,
    *,
    n_starts: int,
    rng: np.random.Generator,
) -> Clustering:
    """Weighted k-means from `n_starts` k-means++ starts, run side by side as one matrix product.

    Each cluster of each start has at least one point.

    Args:
        points: Coordinates; at least as many points as clusters.
        weights: > 0.
        n_clusters: Number of clusters.
        n_starts: Number of starts.
        rng: Draws the starts, and the sample of points where there are very many.

    Source: Arthur & Vassilvitskii 2007 (k-means++); Lloyd 1982.
    """
    n_points = len(points)
    if n_points <= SAMPLE:
        centres = _lloyd(points, weights, _starts(points, weights, n_clusters, n_starts, rng), MAX_ITERATIONS)
    else:
        chosen = torch.from_numpy(np.sort(rng.choice(n_points, SAMPLE, replace=False))).to(points.device)
        some, weight = points[chosen], weights[chosen]
        centres = _lloyd(some, weight, _starts(some, weight, n_clusters, n_starts, rng), MAX_ITERATIONS)
        best = _inertia(some, weight, centres).argmin()
        centres = _lloyd(points, weights, centres[best : best + 1], ITERATIONS_ON_ALL)
    inertia = _inertia(points, weights, centres)
    order = torch.argsort(inertia, stable=True)
    labels = _scores(points, centres[order]).argmax(dim=1).cpu().numpy()
    return Clustering(_without_empty_clusters(labels, n_clusters), inertia[order].cpu().numpy())


def _scores(
    points: Float[Tensor, "points dimensions"], centres: Float[Tensor, "starts clusters dimensions"]
) -> Float[Tensor, "starts clusters points"]:
    """x.c - c.c / 2 for each centre c and point x: largest for the nearest centre."""
    flat = centres.flatten(0, 1)
    scores = torch.addmm(-0.5 * flat.square().sum(dim=1, keepdim=True), flat, points.T)
    return scores.view(*centres.shape[:2], len(points))


def _inertia(
    points: Float[Tensor, "points dimensions"],
    weights: Float[Tensor, " points"],
    centres: Float[Tensor, "starts clusters dimensions"],
) -> Float[Tensor, " starts"]:
    """Weighted sum of squared distances to the nearest centre."""
    nearest = _scores(points, centres).amax(dim=1)  # (starts, points)
    return (weights * points.square().sum(dim=1)).sum() - 2 * nearest @ weights


def _starts(
    points: Float[Tensor, "points dimensions"],
    weights: Float[Tensor, " points"],
    n_clusters: int,
    n_starts: int,
    rng: np.random.Generator,
) -> Float[Tensor, "starts clusters dimensions"]:
    """Greedy k-means++ centres.

    Each next centre is the best of a few points drawn by weight times squared distance to the nearest centre so far.
    """
    n_tries = 2 + int(np.log(n_clusters))
    uniform = torch.from_numpy(rng.random((n_clusters, n_starts, n_tries))).to(points.device)
    norms = points.square().sum(dim=1)
    centres = points.new_empty(n_starts, n_clusters, points.shape[1])
    distance = points.new_full((n_starts, len(points)), torch.inf)
    chance = weights.double().expand(n_starts, -1)
    every_start = torch.arange(n_starts, device=points.device)
    for index in range(n_clusters):
        cumulative = chance.cumsum(dim=1)
        drawn = torch.searchsorted(cumulative, uniform[index] * cumulative[:, -1:]).clamp(max=len(points) - 1)
        tried = points[drawn.flatten()]  # (starts * tries, dimensions)
        new = torch.addmm(tried.square().sum(dim=1, keepdim=True) + norms, tried, points.T, alpha=-2).clamp_(min=0)
        new = torch.minimum(distance[:, None], new.view(n_starts, n_tries, -1))
        best = (new @ weights).argmin(dim=1)
        distance = new[every_start, best]
        centres[:, index] = points[drawn[every_start, best]]
        chance = (distance * weights).double()
    return centres


def _lloyd(
    points: Float[Tensor, "points dimensions"],
    weights: Float[Tensor, " points"],
    centres: Float[Tensor, "starts clusters dimensions"],
    n_iterations: int,
) -> Float[Tensor, "starts clusters dimensions"]:
    weighted = torch.cat([points * weights[:, None], weights[:, None]], dim=1)
    total = (weights * points.square().sum(dim=1)).sum()
    previous = torch.full_like(centres[:, 0, 0], torch.inf)
    for _ in range(n_iterations):
        scores = _scores(points, centres)
        nearest = scores.amax(dim=1, keepdim=True)
        is_member = (scores == nearest).to(points.dtype)  # a point between two equal centres counts for both
        sums = is_member @ weighted  # (starts, clusters, dimensions + 1)
        has_points = sums[..., -1:] > 0
        centres = torch.where(has_points, sums[..., :-1] / sums[..., -1:].clamp(min=1e-30), centres)
        inertia = total - 2 * nearest[:, 0] @ weights
        if torch.all(previous - inertia <= TOLERANCE * inertia.abs()):
            break
        previous = inertia
    return centres


def _without_empty_clusters(
    labels: Int[np.ndarray, "starts points"], n_clusters: int
) -> Int[np.ndarray, "starts points"]:
    """Give each empty cluster one point of the largest cluster (so with fewer distinct points than clusters)."""
    labels = labels.copy()
    for row in labels:
        counts = np.bincount(row, minlength=n_clusters)
        for empty in np.flatnonzero(counts == 0):
            largest = int(counts.argmax())
            row[np.flatnonzero(row == largest)[-1]] = empty
            counts[largest] -= 1
            counts[empty] = 1
    return labels
