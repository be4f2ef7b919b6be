"""The sweep of `refine`, compiled. Importing this file needs numba (the extra `fast`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

MIN_GAIN = 1e-7  # as in refine.py


def compiled(function: Function) -> Function:
    """The function as machine code, kept on disk between runs."""
    # numba can compile the function itself only, not a wrapper that checks its arguments
    return cast("Function", njit(cache=True)(inspect.unwrap(function)))


def sweep(*arguments: Any) -> int:
    """Number of moves of one sweep; labels, links, volumes and weights within are changed in place."""
    first, second, third, *state = arguments
    candidates = _candidates(*state)
    if isinstance(first, np.ndarray):
        return int(_sweep_sparse(candidates, first, second, third, *state))
    return int(_sweep_dense(candidates, first, second, third, *state))


@compiled
def _best_move(
    unit: int, labels: np.ndarray, links: np.ndarray, volumes: np.ndarray, within: np.ndarray, roots: np.ndarray
) -> tuple[int, float]:
    own = labels[unit]
    root = roots[unit]
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
def _candidates(
    labels: np.ndarray, links: np.ndarray, volumes: np.ndarray, within: np.ndarray, roots: np.ndarray
) -> np.ndarray:
    n_units = len(labels)
    best = np.full(n_units, -np.inf)
    for cluster in range(len(volumes)):  # outside, so that the inner loop runs over neighbouring memory
        volume, inside = volumes[cluster], within[cluster]
        share = inside / volume
        for unit in range(n_units):
            grown = (inside + 2 * (links[cluster, unit] * roots[unit])) / (volume + roots[unit] * roots[unit]) - share
            best[unit] = max(best[unit], grown if labels[unit] != cluster else -np.inf)
    chosen = np.empty(n_units, dtype=np.int64)
    count = 0
    for unit in range(n_units):
        own, root = labels[unit], roots[unit]
        left = volumes[own] - root * root
        if left <= 1e-9 * volumes[own]:
            continue
        shrunk = (within[own] - 2 * (links[own, unit] * root)) / left - within[own] / volumes[own]
        if shrunk + best[unit] > MIN_GAIN:
            chosen[count] = unit
            count += 1
    return chosen[:count]


@compiled
def _count_move(
    unit: int,
    best: int,
    labels: np.ndarray,
    links: np.ndarray,
    volumes: np.ndarray,
    within: np.ndarray,
    roots: np.ndarray,
) -> None:
    own = labels[unit]
    root = roots[unit]
    within[own] -= 2 * (links[own, unit] * root)
    within[best] += 2 * (links[best, unit] * root)
    volumes[own] -= root * root
    volumes[best] += root * root
    labels[unit] = best


@compiled
def _shift(links_own: np.ndarray, links_best: np.ndarray, sizes: np.ndarray, root: np.float32) -> None:
    for index in range(len(sizes)):
        change = sizes[index] * root
        links_own[index] -= change
        links_best[index] += change


@compiled
def _sweep_dense(
    candidates: np.ndarray,
    n_first: int,
    rows: np.ndarray,
    columns: np.ndarray,
    labels: np.ndarray,
    links: np.ndarray,
    volumes: np.ndarray,
    within: np.ndarray,
    roots: np.ndarray,
) -> int:
    n_moves = 0
    for unit in candidates:
        own = labels[unit]
        best, gain = _best_move(unit, labels, links, volumes, within, roots)
        if gain <= MIN_GAIN:
            continue
        n_moves += 1
        _count_move(unit, best, labels, links, volumes, within, roots)
        root = np.float32(roots[unit])
        if unit < n_first:
            _shift(links[own, n_first:], links[best, n_first:], rows[unit], root)
        else:
            n_other = columns.shape[1]
            _shift(links[own, :n_other], links[best, :n_other], columns[unit - n_first], root)
    return n_moves


@compiled
def _sweep_sparse(
    candidates: np.ndarray,
    indptr: np.ndarray,
    indices: np.ndarray,
    data: np.ndarray,
    labels: np.ndarray,
    links: np.ndarray,
    volumes: np.ndarray,
    within: np.ndarray,
    roots: np.ndarray,
) -> int:
    n_moves = 0
    for unit in candidates:
        own = labels[unit]
        best, gain = _best_move(unit, labels, links, volumes, within, roots)
        if gain <= MIN_GAIN:
            continue
        n_moves += 1
        _count_move(unit, best, labels, links, volumes, within, roots)
        root = np.float32(roots[unit])
        for place in range(indptr[unit], indptr[unit + 1]):
            change = data[place] * root
            links[own, indices[place]] -= change
            links[best, indices[place]] += change
    return n_moves
