"""Which units of a graph hang together, and are two colours enough?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Int
from scipy.sparse.csgraph import connected_components


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


def connectivity(blocks: Sequence[Edges], n_units: int) -> Connectivity:
    """Components and colouring of the graph that `blocks` make together.

    Both come from one search in the double cover: every unit twice, every edge from the first copy of one end to the
    second copy of the other. A component is bipartite where the copies of its units fall into two parts.
    """
    links = [_links(block) for block in blocks]
    ends = np.concatenate([pair[0] for pair in links] or [np.empty(0, np.int64)])
    others = np.concatenate([pair[1] for pair in links] or [np.empty(0, np.int64)])
    cover = sp.coo_array(
        (np.ones(2 * len(ends), np.int8), (np.r_[ends, others], np.r_[others, ends] + n_units)),
        shape=(2 * n_units, 2 * n_units),
    )
    _, parts = connected_components(cover, directed=False)
    first, second = parts[:n_units], parts[n_units:]
    has_edge = np.zeros(n_units, dtype=bool)
    has_edge[ends] = has_edge[others] = True
    components = _by_size(np.minimum(first, second), has_edge)
    n_components = int(components.max(initial=-1)) + 1
    if np.any(first[has_edge] == second[has_edge]):
        return Connectivity(components, None, n_components)
    colours = np.where(has_edge, (first > second).astype(np.int64), -1)
    return Connectivity(components, _smaller_side_last(colours, components, n_components), n_components)


def _links(block: Edges) -> tuple[Int[np.ndarray, " links"], Int[np.ndarray, " links"]]:
    """Edges (target, source) that keep components and colouring as the whole block does."""
    if not isinstance(block.sizes, np.ndarray):
        entries = block.sizes.tocoo()
        kept = entries.data != 0
        return block.targets[entries.row[kept]], block.sources[entries.col[kept]]
    present = block.sizes != 0
    if len(np.intersect1d(block.targets, block.sources)):
        rows, columns = np.nonzero(present)
    else:
        rows, columns = _spanning_links(present)
    return block.targets[rows], block.sources[columns]


def _spanning_links(present: Bool[np.ndarray, "targets sources"]) -> tuple[np.ndarray, np.ndarray]:
    """A spanning forest of the giant component of a block with two disjoint sides, and every edge of the rest.

    Only edges of a spanning forest matter there, since the two sides of a block can always have two colours.
    """
    if not present.any():
        return np.empty(0, np.int64), np.empty(0, np.int64)
    hub = int(np.count_nonzero(present, axis=1).argmax())
    rows, columns = np.zeros(present.shape[0], dtype=bool), present[hub].copy()
    rows[hub] = True
    links = [(np.full(np.count_nonzero(columns), hub), np.flatnonzero(columns))]
    new_columns = np.flatnonzero(columns)
    while len(new_columns):
        new_rows = np.flatnonzero(~rows)
        reached = present[np.ix_(new_rows, new_columns)]
        touched = reached.any(axis=1)
        links.append((new_rows[touched], new_columns[reached[touched].argmax(axis=1)]))
        new_rows = new_rows[touched]
        rows[new_rows] = True
        open_columns = np.flatnonzero(~columns)
        reached = present[np.ix_(new_rows, open_columns)]
        touched = reached.any(axis=0)
        links.append((new_rows[reached[:, touched].argmax(axis=0)] if touched.any() else new_rows[:0],
                      open_columns[touched]))  # fmt: skip
        new_columns = open_columns[touched]
        columns[new_columns] = True
    other_rows = np.flatnonzero(~rows)
    row, column = np.nonzero(present[other_rows])
    links.append((other_rows[row], column))
    return np.concatenate([pair[0] for pair in links]), np.concatenate([pair[1] for pair in links])


def _by_size(parts: Int[np.ndarray, " units"], has_edge: Bool[np.ndarray, " units"]) -> Int[np.ndarray, " units"]:
    names, inverse, sizes = np.unique(parts[has_edge], return_inverse=True, return_counts=True)
    rank = np.empty(len(names), dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(len(names))
    components = np.full(len(parts), -1, dtype=np.int64)
    components[has_edge] = rank[inverse]
    return components


def _smaller_side_last(
    colours: Int[np.ndarray, " units"], components: Int[np.ndarray, " units"], n_components: int
) -> Int[np.ndarray, " units"]:
    """Colours flipped, component by component, so that colour 1 is the rarer one: the half graph's short side."""
    if n_components == 0:
        return colours
    n_first = np.bincount(components[colours == 0], minlength=n_components)
    n_second = np.bincount(components[colours == 1], minlength=n_components)
    flipped = (colours >= 0) & (n_second > n_first)[components]
    return np.where(flipped, 1 - colours, colours)
