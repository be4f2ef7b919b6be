"""The sweep of `refine`, compiled. Importing this file needs numba (the extra `fast`)."""

from __future__ import annotations

from functools import partial

import numpy as np

from modscope import compiling

compiled = partial(compiling.compiled, nogil=True)


@compiled
def best_move(
    unit: int, labels: np.ndarray, links: np.ndarray, volumes: np.ndarray, within: np.ndarray, degrees: np.ndarray
) -> tuple[int, float]:
    """The cluster that the unit would best move to, and the n-cut that this saves."""
    own, degree = labels[unit], degrees[unit]
    left = volumes[own] - degree
    if left <= 1e-9 * volumes[own]:
        return own, -np.inf
    shrunk = (within[own] - 2 * np.float64(links[own, unit])) / left - within[own] / volumes[own]
    best, best_gain = own, -np.inf
    for cluster in range(len(volumes)):
        if cluster == own:
            continue
        grown = (within[cluster] + 2 * np.float64(links[cluster, unit])) / (volumes[cluster] + degree)
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
    degrees: np.ndarray,
) -> np.ndarray:
    """Units from `first` to `last` - 1 whose best move would save more than `least`."""
    best = np.full(last - first, -np.inf)
    for cluster in range(len(volumes)):  # outside, so that the inner loop runs over neighbouring memory
        volume, inside = volumes[cluster], within[cluster]
        share = inside / volume
        for unit in range(first, last):
            grown = (inside + 2 * np.float64(links[cluster, unit])) / (volume + degrees[unit]) - share
            best[unit - first] = max(best[unit - first], grown if labels[unit] != cluster else -np.inf)
    chosen = np.empty(last - first, dtype=np.int64)
    count = 0
    for unit in range(first, last):
        own = labels[unit]
        left = volumes[own] - degrees[unit]
        if left <= 1e-9 * volumes[own]:
            continue
        shrunk = (within[own] - 2 * np.float64(links[own, unit])) / left - within[own] / volumes[own]
        if shrunk + best[unit - first] > least:
            chosen[count] = unit
            count += 1
    return chosen[:count]


@compiled
def sweep(
    least: float,
    units_at_once: int,
    first_run: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    firsts: np.ndarray,
    lists: np.ndarray,
    neighbours: np.ndarray,
    sizes: np.ndarray,
    labels: np.ndarray,
    links: np.ndarray,
    volumes: np.ndarray,
    within: np.ndarray,
    degrees: np.ndarray,
) -> int:
    """Number of moves of one sweep; labels, links, volumes and weights within are changed in place."""
    n_moves = 0
    for first in range(0, len(labels), units_at_once):
        last = min(first + units_at_once, len(labels))
        for unit in candidates(least, first, last, labels, links, volumes, within, degrees):
            own = labels[unit]
            best, gain = best_move(unit, labels, links, volumes, within, degrees)
            if gain <= least:
                continue
            n_moves += 1
            within[own] -= 2 * np.float64(links[own, unit])
            within[best] += 2 * np.float64(links[best, unit])
            volumes[own] -= degrees[unit]
            volumes[best] += degrees[unit]
            labels[unit] = best
            for run in range(first_run[unit], first_run[unit + 1]):
                some = sizes[starts[run] : starts[run] + lengths[run]]
                shift(links[own], links[best], firsts[run], neighbours[lists[run] :], some)
    return n_moves


@compiled
def shift(own: np.ndarray, best: np.ndarray, first: int, places: np.ndarray, sizes: np.ndarray) -> None:
    """Take a unit's weights from its old cluster's links and give them to its new one's, neighbour by neighbour.

    The neighbours are a stretch from `first` on or, if that is negative, in the places listed.
    """
    for index in range(len(sizes)):
        place = places[index] if first < 0 else first + index
        own[place] -= sizes[index]
        best[place] += sizes[index]
