"""Which single moves make the n-cut of a partition smaller?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from modscope.graph.operator import NormalizedOperator, Part, places_of

MAX_SWEEPS = 50
MIN_SWEEP_GAIN = 1e-4  # share of the n-cut that a sweep must save for another one to follow
MIN_GAIN = 1e-7  # n-cut that a move must save in the end; below it float32 sums decide
# Units whose best moves are looked for at once. With many, too many units leave a cluster or join it together.
UNITS_AT_ONCE = 64
LOOSENESS = 0.8  # n-cut that a move may cost in the first loose sweep, times the number of units
# Loose sweeps: more where the half graph has more entries (its eigenvectors take longer too), few over many units.
ENTRIES_PER_SWEEP, MAX_VISITS = 32_000, 1 << 20
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
    wanted = min(max(operator.n_entries // ENTRIES_PER_SWEEP, FEWEST_SWEEPS), MOST_SWEEPS)
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
    """Labels; links[c, i], the weight between cluster c and unit i; volumes; weights within; degrees."""
    degrees = operator.root_degrees**2
    is_member = np.zeros((len(labels), n_clusters), dtype=np.float32)
    is_member[np.arange(len(labels)), labels] = 1
    links = operator.linked(is_member)
    volumes = np.bincount(labels, weights=degrees, minlength=n_clusters)
    within = np.bincount(labels, weights=links[np.arange(len(labels)), labels], minlength=n_clusters)
    return labels.astype(np.int64), np.ascontiguousarray(links.T), volumes, within, degrees


def _mean_share_inside(state: tuple[np.ndarray, ...]) -> float:
    _, _, volumes, within, _ = state
    return float((within / volumes).mean())


def _neighbours(operator: NormalizedOperator) -> tuple[np.ndarray, ...]:
    """The weights of each unit as runs of one long array.

    For each unit the number of its first run (and one number more); for each run where its weights begin, how many
    they are, and either the first neighbour of a stretch of units, or -1 and where the run's list of neighbours
    begins; then all such lists, and all weights.
    """
    lists, sizes = _Joined(), _Joined()
    runs = []
    for part in operator.both_ways():
        runs_of = _dense_runs if isinstance(part.sizes, np.ndarray) else _sparse_runs
        own = places_of(part.rows)
        runs.append([own, *(np.broadcast_to(column, own.shape) for column in runs_of(part, lists, sizes))])
    units, *columns = (np.concatenate(several).astype(np.int64) for several in zip(*runs, strict=True))
    order = np.argsort(units, kind="stable")
    first_run = np.concatenate([[0], np.cumsum(np.bincount(units, minlength=len(operator.units)))])
    return first_run, *(column[order] for column in columns), lists.whole(np.int32), sizes.whole(np.float32)


class _Joined:
    """Arrays that become one."""

    def __init__(self) -> None:
        self.pieces: list[np.ndarray] = []
        self.length = 0

    def start_of(self, piece: np.ndarray) -> int:
        """Where the piece, put in last, begins in the whole."""
        self.pieces.append(piece)
        self.length += piece.size
        return self.length - piece.size

    def whole(self, kind: type[np.generic]) -> np.ndarray:
        """All pieces in a row."""
        whole = np.empty(self.length, dtype=kind)
        start = 0
        for piece in self.pieces:
            whole[start : start + piece.size].reshape(piece.shape)[...] = piece
            start += piece.size
        return whole


def _dense_runs(part: Part, lists: _Joined, sizes: _Joined) -> tuple[Any, ...]:
    """Begins, lengths, first neighbours and begins of lists: one for each row, or one for all."""
    n_rows, n_columns = part.sizes.shape
    begins = sizes.start_of(part.sizes) + np.arange(n_rows) * n_columns
    if isinstance(part.columns, slice):
        return begins, n_columns, part.columns.start, 0
    return begins, n_columns, -1, lists.start_of(part.columns)


def _sparse_runs(part: Part, lists: _Joined, sizes: _Joined) -> tuple[Any, ...]:
    """The same of a part whose rows have neighbours of their own."""
    rows, there = sp.csr_array(part.sizes), part.columns
    listed = rows.indices + there.start if isinstance(there, slice) else there[rows.indices]
    begins = rows.indptr[:-1].astype(np.int64)
    return sizes.start_of(rows.data) + begins, np.diff(rows.indptr), -1, lists.start_of(listed) + begins


def _sweep(least: float, units_at_once: int, *arguments: Any) -> int:
    """Number of moves of one sweep, in numpy."""
    *access, labels, links, volumes, within, degrees = arguments
    n_moves = 0
    for first in range(0, len(labels), units_at_once):
        some = slice(first, first + units_at_once)
        gains = _gains(labels[some], links[:, some], volumes, within, degrees[some])
        for unit in (first + np.flatnonzero(gains.max(axis=0) > least)).tolist():
            gain = _gains(labels[[unit]], links[:, [unit]], volumes, within, degrees[[unit]])[:, 0]
            own, best = int(labels[unit]), int(gain.argmax())
            if gain[best] <= least:
                continue
            n_moves += 1
            within[own] -= 2 * links[own, unit]
            within[best] += 2 * links[best, unit]
            volumes[own] -= degrees[unit]
            volumes[best] += degrees[unit]
            labels[unit] = best
            for there, sizes in _runs_of(unit, *access):
                links[own, there] -= sizes
                links[best, there] += sizes
    return n_moves


def _runs_of(
    unit: int,
    first_run: np.ndarray,
    starts: np.ndarray,
    lengths: np.ndarray,
    firsts: np.ndarray,
    lists: np.ndarray,
    neighbours: np.ndarray,
    sizes: np.ndarray,
) -> Iterator[tuple[Any, np.ndarray]]:
    """Neighbours of a unit, and the weights between them and it."""
    for run in range(first_run[unit], first_run[unit + 1]):
        length, first = lengths[run], firsts[run]
        there = neighbours[lists[run] : lists[run] + length] if first < 0 else slice(first, first + length)
        yield there, sizes[starts[run] : starts[run] + length]


def _gains(
    labels: Int[np.ndarray, " some"],
    links: Float[np.ndarray, "clusters some"],
    volumes: Float[np.ndarray, " clusters"],
    within: Float[np.ndarray, " clusters"],
    degrees: Float[np.ndarray, " some"],
) -> Float[np.ndarray, "clusters some"]:
    """n-cut saved by moving each unit to each cluster; -inf where it cannot go."""
    units = np.arange(len(labels))
    left = volumes[labels] - degrees
    with np.errstate(divide="ignore", invalid="ignore"):
        shrunk = (within[labels] - 2 * links[labels, units].astype(np.float64)) / left - within[labels] / volumes[
            labels
        ]
    can_leave = left > 1e-9 * volumes[labels]
    grown = (within[:, None] + 2 * links.astype(np.float64)) / (volumes[:, None] + degrees) - (within / volumes)[
        :, None
    ]
    gains: np.ndarray = np.where(can_leave, shrunk + grown, -np.inf)
    gains[labels, units] = -np.inf
    return gains


@cache
def _compiled_sweep() -> Callable[..., int]:
    from modscope.partition.refine_numba import sweep

    return sweep
