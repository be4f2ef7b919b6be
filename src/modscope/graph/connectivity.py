"""Which units of a graph hang together, and are two colours enough?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components

N_SEARCHES = 8  # components found one by one, largest degree first; the rest (crumbs, as a rule) all at once


class Edges(Protocol):
    """What connectivity needs of a block of edges."""

    @property
    def sources(self) -> np.ndarray:
        """Unit of each column."""

    @property
    def targets(self) -> np.ndarray:
        """Unit of each row."""

    @property
    def sizes(self) -> np.ndarray | sp.csr_array:
        """Zero where there is no edge."""


@dataclass(frozen=True, eq=False)
class Connectivity:
    """Connected components, and a colouring where there is one."""

    components: Int[np.ndarray, " units"]  # largest first; -1: isolated
    colours: Int[np.ndarray, " units"] | None  # 0 or 1, -1: isolated; None: an odd cycle stands in the way
    n_components: int


def connectivity(blocks: Sequence[Edges], degrees: Float[np.ndarray, " units"]) -> Connectivity:
    """Components and colouring of the graph that `blocks` make together.

    Both come from the double cover: every unit twice, every edge from the first copy of one end to the second copy
    of the other. A component is bipartite where the two copies of a unit do not hang together.

    Args:
        blocks: Edges; sizes are >= 0.
        degrees: Total size of the edges at each unit.
    """
    names = np.full(len(degrees), -1, dtype=np.int64)
    colours = np.full(len(degrees), -1, dtype=np.int64)
    is_open = degrees > 0
    is_bipartite = True
    for name in range(N_SEARCHES):
        if not is_open.any():
            break
        start = int(np.where(is_open, degrees, -1).argmax())
        even, odd = _reached(blocks, start, len(degrees))
        names[even | odd] = name
        colours[even], colours[odd] = 0, 1
        is_bipartite &= not np.any(even & odd)
        is_open &= ~(even | odd)
    if is_open.any():
        first, second = _double_cover_parts(blocks, is_open)
        names[is_open] = N_SEARCHES + np.minimum(first, second)
        colours[is_open] = first > second
        is_bipartite &= not np.any(first == second)
    components, n_components = _by_size(names)
    if not is_bipartite:
        return Connectivity(components, None, n_components)
    return Connectivity(components, _rarer_last(colours, components, n_components), n_components)


def _reached(
    blocks: Sequence[Edges], start: int, n_units: int
) -> tuple[Bool[np.ndarray, " units"], Bool[np.ndarray, " units"]]:
    """Units that walks of even length from `start` reach, and those that walks of odd length reach."""
    reached = np.zeros((2, n_units), dtype=bool)
    reached[0, start] = True
    n_before, n_reached = 0, 1
    while n_reached > n_before:
        for block in (*blocks, *reversed(blocks)):  # there and back: two sweeps pass through a chain of any depth
            for parity in (0, 1):
                _step(block.sizes, block.sources, block.targets, reached[parity], reached[1 - parity])
                _step(block.sizes.T, block.targets, block.sources, reached[parity], reached[1 - parity])
        n_before, n_reached = n_reached, int(np.count_nonzero(reached))
    return reached[0], reached[1]


def _step(
    sizes: np.ndarray | sp.csr_array | sp.csc_array,
    here: Int[np.ndarray, " here"],
    there: Int[np.ndarray, " there"],
    is_reached: Bool[np.ndarray, " units"],
    becomes_reached: Bool[np.ndarray, " units"],
) -> None:
    from_here = is_reached[here]
    if from_here.any() and not becomes_reached[there].all():
        becomes_reached[there] |= sizes @ from_here.astype(sizes.dtype) > 0


def _double_cover_parts(
    blocks: Sequence[Edges], is_open: Bool[np.ndarray, " units"]
) -> tuple[Int[np.ndarray, " open"], Int[np.ndarray, " open"]]:
    """The part of the double cover that each open unit's first and second copy belong to."""
    position = np.cumsum(is_open) - 1
    n_open = int(np.count_nonzero(is_open))
    rows, columns = [], []
    for block in blocks:
        here, there = np.flatnonzero(is_open[block.targets]), np.flatnonzero(is_open[block.sources])
        row, column = block.sizes[here][:, there].nonzero()
        rows.append(position[block.targets[here[row]]])
        columns.append(position[block.sources[there[column]]])
    ends, others = np.concatenate(rows), np.concatenate(columns)
    cover = sp.coo_array(
        (np.ones(2 * len(ends), np.int8), (np.r_[ends, others], np.r_[others, ends] + n_open)),
        shape=(2 * n_open, 2 * n_open),
    )
    _, parts = connected_components(cover, directed=False)
    return parts[:n_open], parts[n_open:]


def _by_size(names: Int[np.ndarray, " units"]) -> tuple[Int[np.ndarray, " units"], int]:
    """Components numbered by their number of units, largest first, and how many there are."""
    has_edge = names >= 0
    counts = np.bincount(names[has_edge])
    order = np.argsort(-counts, kind="stable")
    rank = np.empty(len(counts), dtype=np.int64)
    rank[order] = np.arange(len(counts))
    components = np.full(len(names), -1, dtype=np.int64)
    components[has_edge] = rank[names[has_edge]]
    return components, int(np.count_nonzero(counts))


def _rarer_last(
    colours: Int[np.ndarray, " units"], components: Int[np.ndarray, " units"], n_components: int
) -> Int[np.ndarray, " units"]:
    """Colours flipped, component by component, so that colour 1 is the rarer one: the half graph's short side."""
    if n_components == 0:
        return colours
    n_first = np.bincount(components[colours == 0], minlength=n_components)
    n_second = np.bincount(components[colours == 1], minlength=n_components)
    is_flipped = (colours >= 0) & (n_second > n_first)[components]
    return np.where(is_flipped, 1 - colours, colours)
