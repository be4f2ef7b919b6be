"""The sweep of `refine`, compiled. Importing this file needs numba (the extra `fast`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function as machine code, kept on disk between runs."""
    # numba can compile the function itself only, not a wrapper that checks its arguments
    return cast("Function", njit(cache=True, nogil=True)(inspect.unwrap(function)))


@compiled
def best_move(
    unit: int, labels: np.ndarray, links: np.ndarray, volumes: np.ndarray, within: np.ndarray, roots: np.ndarray
) -> tuple[int, float]:
    """The cluster that the unit would best move to, and the n-cut that this saves."""
    own, root = labels[unit], roots[unit]
    degree = root * root
    left = volumes[own] - degree
    if left <= 1e-9 * volumes[own]:
        return own, -np.inf
    shrunk = (within[own] - 2 * (links[own, unit] * root)) / left - within[own] / volumes[own]
    best, best_gain = own, -np.inf
    for cluster in range(len(volumes)):
        if cluster == own:
            continue
        grown = (within[cluster] + 2 * (links[cluster, unit] * root)) / (volumes[cluster] + degree)
        gain = shrunk + (grown - within[cluster] / volumes[cluster])
        if gain > best_gain:
            best, best_gain = cluster, gain
    return best, best_gain


@compiled
def candidates(
    least: float,
    first: int,
    last: int,
    labels: np.ndarray,
    links: np.ndarray,
    volumes: np.ndarray,
    within: np.ndarray,
    roots: np.ndarray,
) -> np.ndarray:
    """Units from `first` to `last` - 1 whose best move would save more than `least`."""
    best = np.full(last - first, -np.inf)
    for cluster in range(len(volumes)):  # outside, so that the inner loop runs over neighbouring memory
        volume, inside = volumes[cluster], within[cluster]
        share = inside / volume
        for unit in range(first, last):
            grown = (inside + 2 * (links[cluster, unit] * roots[unit])) / (volume + roots[unit] * roots[unit]) - share
            best[unit - first] = max(best[unit - first], grown if labels[unit] != cluster else -np.inf)
    chosen = np.empty(last - first, dtype=np.int64)
    count = 0
    for unit in range(first, last):
        own, root = labels[unit], roots[unit]
        left = volumes[own] - root * root
        if left <= 1e-9 * volumes[own]:
            continue
        shrunk = (within[own] - 2 * (links[own, unit] * root)) / left - within[own] / volumes[own]
        if shrunk + best[unit - first] > least:
            chosen[count] = unit
            count += 1
    return chosen[:count]


@compiled
def sweep(
    least: float,
    units_at_once: int,
    starts: np.ndarray,
    lengths: np.ndarray,
    firsts: np.ndarray,
    indices: np.ndarray,
    sizes: np.ndarray,
    labels: np.ndarray,
    links: np.ndarray,
    volumes: np.ndarray,
    within: np.ndarray,
    roots: np.ndarray,
) -> int:
    """Number of moves of one sweep; labels, links, volumes and weights within are changed in place."""
    n_moves = 0
    for first in range(0, len(labels), units_at_once):
        last = min(first + units_at_once, len(labels))
        for unit in candidates(least, first, last, labels, links, volumes, within, roots):
            own = labels[unit]
            best, gain = best_move(unit, labels, links, volumes, within, roots)
            if gain <= least:
                continue
            n_moves += 1
            count_move(unit, best, labels, links, volumes, within, roots)
            run = slice(starts[unit], starts[unit] + lengths[unit])
            if len(indices):
                shift_scattered(links[own], links[best], indices[run], sizes[run], np.float32(roots[unit]))
            else:
                there = slice(firsts[unit], firsts[unit] + lengths[unit])
                shift_run(links[own, there], links[best, there], sizes[run], np.float32(roots[unit]))
    return n_moves


@compiled
def count_move(
    unit: int,
    best: int,
    labels: np.ndarray,
    links: np.ndarray,
    volumes: np.ndarray,
    within: np.ndarray,
    roots: np.ndarray,
) -> None:
    """Enter a move into the label, the volumes and the weights within."""
    own, root = labels[unit], roots[unit]
    within[own] -= 2 * (links[own, unit] * root)
    within[best] += 2 * (links[best, unit] * root)
    volumes[own] -= root * root
    volumes[best] += root * root
    labels[unit] = best


@compiled
def shift_scattered(own: np.ndarray, best: np.ndarray, places: np.ndarray, sizes: np.ndarray, root: np.float32) -> None:
    """Move a unit's weights from its old cluster's links to its new one's, neighbour by neighbour."""
    for index in range(len(sizes)):
        change = sizes[index] * root
        own[places[index]] -= change
        best[places[index]] += change


@compiled
def shift_run(own: np.ndarray, best: np.ndarray, sizes: np.ndarray, root: np.float32) -> None:
    """The same for neighbours that are a run of units."""
    for index in range(len(sizes)):
        change = sizes[index] * root
        own[index] -= change
        best[index] += change
