"""Which single moves make the n-cut of a partition smaller?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from modscope.graph.operator import NormalizedOperator, as_numpy

MAX_SWEEPS = 50
MIN_SWEEP_GAIN = 1e-4  # share of the n-cut that a sweep must save for another one to follow
MIN_GAIN = 1e-7  # n-cut that a move must save in the end; below it float32 sums decide
# Units whose best moves are looked for at once. With many, too many units leave a cluster or join it together.
UNITS_AT_ONCE = 64
LOOSENESS = 0.7  # n-cut that a move may cost in the first loose sweep, times the number of units
# Loose sweeps: more where the half graph has more entries (its eigenvectors take longer too), few over many units.
ENTRIES_PER_SWEEP, MAX_VISITS = 1 << 16, 1 << 20
FEWEST_SWEEPS, MOST_SWEEPS = 10, 70


def refined(
    operator: NormalizedOperator,
    labels: Int[np.ndarray, " kept"],
    n_clusters: int,
    *,
    n_loose_sweeps: int | None = None,
    use_numba: bool | None = None,
) -> Int[np.ndarray, " kept"]:
    """Labels after moving single units between clusters until no move lowers the n-cut by much.

    One sweep finds every unit that would gain by a move, then visits those in the order of their numbers and moves
    each to its best cluster if that still lowers the n-cut. No cluster is ever emptied. Before, loose sweeps accept
    moves that raise the n-cut a little, less from sweep to sweep, and so leave the nearest local minimum for a
    lower one.

    Args:
        operator: The graph's normalised adjacency.
        labels: Clusters 0 .. n_clusters - 1, none of them empty.
        n_clusters: Number of clusters.
        n_loose_sweeps: 0 = never accept a move that raises the n-cut; None = as many as the size of the graph allows.
        use_numba: True, False, or None: where it is installed (the extra `fast`). The result is the same.

    Source: Dueck & Scheuer 1990, "Threshold accepting" (the loose sweeps).
    """
    state = _state(operator, labels, n_clusters)
    sweep = _compiled_sweep() if (has_numba() if use_numba is None else use_numba) else _sweep
    access = _neighbours(operator)
    before = _mean_share_inside(state)
    if n_loose_sweeps is None:
        n_loose_sweeps = _n_loose_sweeps(operator)
    for left in range(n_loose_sweeps, 0, -1):
        if not sweep(-LOOSENESS / len(labels) * left / n_loose_sweeps, UNITS_AT_ONCE, *access, *state):
            break
    _tightened(sweep, access, state)
    if n_loose_sweeps and _mean_share_inside(state) < before:
        return refined(operator, labels, n_clusters, n_loose_sweeps=0, use_numba=use_numba)
    return state[0]


def _n_loose_sweeps(operator: NormalizedOperator) -> int:
    n_entries = int(operator.half.shape[0]) * int(operator.half.shape[1])
    wanted = min(max(n_entries // ENTRIES_PER_SWEEP, FEWEST_SWEEPS), MOST_SWEEPS)
    return min(wanted, MAX_VISITS // max(1, len(operator.units)))


def _tightened(sweep: Callable[..., int], access: tuple[Any, ...], state: tuple[np.ndarray, ...]) -> None:
    """Sweep until a sweep saves next to nothing."""
    inside = _mean_share_inside(state)
    for _ in range(MAX_SWEEPS):
        n_moves = sweep(MIN_GAIN, UNITS_AT_ONCE, *access, *state)
        before, inside = inside, _mean_share_inside(state)
        # n-cut is n_clusters * (1 - inside)
        if not n_moves or inside - before < MIN_SWEEP_GAIN * (1 - inside):
            break


@cache
def has_numba() -> bool:
    """Whether the extra `fast` is installed."""
    from importlib.util import find_spec

    return find_spec("numba") is not None


def _state(
    operator: NormalizedOperator, labels: Int[np.ndarray, " kept"], n_clusters: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels; links[c, i] = (weight between unit i and cluster c) / root degree of i; volumes; weight within; roots."""
    roots = operator.root_degrees
    is_member = np.zeros((len(labels), n_clusters), dtype=np.float32)
    is_member[np.arange(len(labels)), labels] = roots
    links = as_numpy(operator.multiply(operator.like(is_member)))
    volumes = np.bincount(labels, weights=roots**2, minlength=n_clusters)
    own = links[np.arange(len(labels)), labels] * roots
    within = np.bincount(labels, weights=own, minlength=n_clusters)
    return labels.astype(np.int64), np.ascontiguousarray(links.T), volumes, within, roots


def _mean_share_inside(state: tuple[np.ndarray, ...]) -> float:
    _, _, volumes, within, _ = state
    return float((within / volumes).mean())


def _neighbours(operator: NormalizedOperator) -> tuple[np.ndarray, ...]:
    """Where each unit's weights lie in one long array, how many, and at which units.

    Starts and lengths, for each unit; its first neighbour, where the neighbours are a run of units; else all
    neighbours one by one; the weights. Of a dense half graph a unit's run covers all parts that it has a row in.
    """
    half: Any = operator.half
    n_first = operator.n_first
    nothing = np.empty(0, dtype=np.int32)
    if sp.issparse(half):
        whole = sp.block_array([[None, half], [half.T, None]], format="csr") if n_first else half
        indptr = whole.indptr.astype(np.int64)
        return indptr[:-1], np.diff(indptr), nothing, whole.indices, whole.data
    dense = as_numpy(half)
    places = operator.rectangles or ((slice(0, dense.shape[0]), slice(0, dense.shape[1])),)
    parts = _runs(dense, places, shift=n_first)
    if n_first:
        parts += _runs(dense.T, [(columns, rows) for rows, columns in places], shift=0)
    lengths = np.concatenate([np.full(part.shape[0], part.shape[1], dtype=np.int64) for part, _ in parts])
    firsts = np.concatenate([np.full(part.shape[0], first, dtype=np.int64) for part, first in parts])
    return np.cumsum(lengths) - lengths, lengths, firsts, nothing, np.concatenate([part.ravel() for part, _ in parts])


def _runs(
    dense: Float[np.ndarray, "rows columns"], places: Sequence[tuple[slice, slice]], *, shift: int
) -> list[tuple[np.ndarray, int]]:
    """The rows, in order, in stretches that have the same columns; each with the unit of its first column."""
    edges = np.unique([edge for rows, _ in places for edge in (rows.start, rows.stop)])
    runs = []
    for top, bottom in pairwise(edges):
        columns = [column for rows, column in places if rows.start <= top and bottom <= rows.stop]
        first, last = min(column.start for column in columns), max(column.stop for column in columns)
        runs.append((dense[top:bottom, first:last], shift + first))
    return runs


def _sweep(least: float, units_at_once: int, *arguments: Any) -> int:
    """Number of moves of one sweep, in numpy."""
    starts, lengths, firsts, indices, sizes, labels, links, volumes, within, roots = arguments
    n_moves = 0
    for first in range(0, len(labels), units_at_once):
        some = slice(first, first + units_at_once)
        gains = _gains(labels[some], links[:, some], volumes, within, roots[some])
        for unit in (first + np.flatnonzero(gains.max(axis=0) > least)).tolist():
            own, root = int(labels[unit]), np.float32(roots[unit])
            gain = _gains(labels[[unit]], links[:, [unit]], volumes, within, roots[[unit]])[:, 0]
            best = int(gain.argmax())
            if gain[best] <= least:
                continue
            n_moves += 1
            _count_move(unit, best, labels, links, volumes, within, roots)
            run = slice(starts[unit], starts[unit] + lengths[unit])
            neighbours = indices[run] if len(indices) else slice(firsts[unit], firsts[unit] + lengths[unit])
            links[own, neighbours] -= sizes[run] * root
            links[best, neighbours] += sizes[run] * root
    return n_moves


def _count_move(
    unit: int,
    best: int,
    labels: Int[np.ndarray, " kept"],
    links: Float[np.ndarray, "clusters kept"],
    volumes: Float[np.ndarray, " clusters"],
    within: Float[np.ndarray, " clusters"],
    roots: Float[np.ndarray, " kept"],
) -> None:
    own, root = labels[unit], roots[unit]
    within[own] -= 2 * (links[own, unit] * root)
    within[best] += 2 * (links[best, unit] * root)
    volumes[own] -= root * root
    volumes[best] += root * root
    labels[unit] = best


def _gains(
    labels: Int[np.ndarray, " kept"],
    links: Float[np.ndarray, "clusters kept"],
    volumes: Float[np.ndarray, " clusters"],
    within: Float[np.ndarray, " clusters"],
    roots: Float[np.ndarray, " kept"],
) -> Float[np.ndarray, "clusters kept"]:
    """n-cut saved by moving each unit to each cluster; -inf where it cannot go."""
    linked = links * roots
    degree = roots * roots
    units = np.arange(len(labels))
    left = volumes[labels] - degree
    with np.errstate(divide="ignore", invalid="ignore"):
        shrunk = (within[labels] - 2 * linked[labels, units]) / left - within[labels] / volumes[labels]
    can_leave = left > 1e-9 * volumes[labels]
    grown = (within[:, None] + 2 * linked) / (volumes[:, None] + degree) - (within / volumes)[:, None]
    gains: np.ndarray = np.where(can_leave, shrunk + grown, -np.inf)
    gains[labels, units] = -np.inf
    return gains


@cache
def _compiled_sweep() -> Callable[..., int]:
    from modscope.partition.refine_numba import sweep

    return sweep
