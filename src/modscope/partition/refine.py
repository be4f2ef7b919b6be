"""Which single moves make the n-cut of a partition smaller?"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int

from modscope.graph.operator import NormalizedOperator, as_numpy

MAX_SWEEPS = 50
MIN_SWEEP_GAIN = 1e-4  # share of the n-cut that a sweep must save for another one to follow
MIN_GAIN = 1e-7  # n-cut that a move must save; below it float32 sums decide


def refined(
    operator: NormalizedOperator, labels: Int[np.ndarray, " kept"], n_clusters: int, *, use_numba: bool | None = None
) -> Int[np.ndarray, " kept"]:
    """Labels after moving single units between clusters for as long as that lowers the n-cut.

    One sweep finds every unit that would gain by a move, then visits those in the order of their numbers and moves
    each to its best cluster if that still lowers the n-cut. No cluster is ever emptied.

    Args:
        operator: The graph's normalised adjacency.
        labels: Clusters 0 .. n_clusters - 1, none of them empty.
        n_clusters: Number of clusters.
        use_numba: True, False, or None: where it is installed (the extra `fast`). The result is the same.
    """
    state = _state(operator, labels, n_clusters)
    sweep = _compiled_sweep() if (has_numba() if use_numba is None else use_numba) else _sweep
    access = _neighbours(operator)
    inside = _mean_share_inside(state)
    for _ in range(MAX_SWEEPS):
        n_moves = sweep(*access, *state)
        before, inside = inside, _mean_share_inside(state)
        # n-cut is n_clusters * (1 - inside)
        if not n_moves or inside - before < MIN_SWEEP_GAIN * (1 - inside):
            break
    return state[0]


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


def _neighbours(operator: NormalizedOperator) -> tuple[Any, ...]:
    """The half graph row by row for the units of both colours: n_first, dense | indptr, indices, data."""
    half, n_first = operator.half, operator.n_first
    if operator.is_dense and not sp.issparse(half):
        rows = as_numpy(half)
        # torch transposes in half of numpy's time
        return n_first, rows, torch.from_numpy(rows).T.contiguous().numpy() if n_first else rows
    if isinstance(half, torch.Tensor):
        half = half.cpu()
        index = (half.col_indices().numpy(), half.crow_indices().numpy())
        half = sp.csr_array((half.values().numpy(), *index), shape=half.shape)
    assert isinstance(half, sp.csr_array)
    whole = sp.block_array([[None, half], [half.T, None]], format="csr") if n_first else half
    return whole.indptr, whole.indices, whole.data


def _sweep(*arguments: Any) -> int:
    """Number of moves of one sweep, in numpy."""
    *access, labels, links, volumes, within, roots = arguments
    n_moves = 0
    candidates = np.flatnonzero(_gains(labels, links, volumes, within, roots).max(axis=0) > MIN_GAIN)
    for unit in candidates.tolist():
        own = int(labels[unit])
        gains = _gains_of(links[:, unit], own, volumes, within, roots[unit])
        best = int(gains.argmax())
        if gains[best] <= MIN_GAIN:
            continue
        n_moves += 1
        _count_move(unit, own, best, links, volumes, within, roots)
        neighbours, sizes = _row(unit, *access)
        change = sizes * np.float32(roots[unit])
        links[own, neighbours] -= change
        links[best, neighbours] += change
        labels[unit] = best
    return n_moves


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


def _gains_of(
    links: Float[np.ndarray, " clusters"],
    own: int,
    volumes: Float[np.ndarray, " clusters"],
    within: Float[np.ndarray, " clusters"],
    root: float,
) -> Float[np.ndarray, " clusters"]:
    linked = links * root
    degree = root * root
    left = volumes[own] - degree
    if left <= 1e-9 * volumes[own]:
        return np.full(len(volumes), -np.inf)
    shrunk = (within[own] - 2 * linked[own]) / left - within[own] / volumes[own]
    gains: np.ndarray = shrunk + ((within + 2 * linked) / (volumes + degree) - within / volumes)
    gains[own] = -np.inf
    return gains


def _count_move(
    unit: int, own: int, best: int, links: np.ndarray, volumes: np.ndarray, within: np.ndarray, roots: np.ndarray
) -> None:
    root = roots[unit]
    within[own] -= 2 * (links[own, unit] * root)
    within[best] += 2 * (links[best, unit] * root)
    volumes[own] -= root * root
    volumes[best] += root * root


def _row(unit: int, *access: Any) -> tuple[Any, np.ndarray]:
    first, second, third = access
    if isinstance(first, np.ndarray):
        some = slice(first[unit], first[unit + 1])
        return second[some], third[some]
    n_first, rows, columns = first, second, third
    if unit < n_first:
        return slice(n_first, None), rows[unit]
    return slice(0, n_first or None), columns[unit - n_first]


@cache
def _compiled_sweep() -> Callable[..., int]:
    from modscope.partition.refine_numba import sweep

    return sweep
