"""What is the undirected graph of a network's units?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from modscope.errors import GraphError
from modscope.graph.connectivity import Connectivity, connectivity


@dataclass(frozen=True, eq=False)
class Block:
    """Edges between two sets of units: `sizes[i, j] >= 0` joins `targets[i]` and `sources[j]`; zero is no edge.

    One block per connection (a layer's weights), so that a null model can draw each layer anew.
    Within a block no unit stands twice on one side. Where a unit stands on both sides, `sizes[i, j]` and the entry of
    the same two units the other way round are parallel edges and add up (a symmetric matrix goes in as one triangle).

    Raises:
        GraphError: If a size is negative, NaN or infinite, the shapes do not join, or a unit stands twice on a side.
    """

    sources: Int[np.ndarray, " sources"]
    targets: Int[np.ndarray, " targets"]
    sizes: Float[np.ndarray, "targets sources"] | sp.csr_array  # float32, or float64 where the caller's are
    name: str

    def __post_init__(self) -> None:
        wanted = (len(self.targets), len(self.sources))
        if self.sizes.shape != wanted:
            raise GraphError(
                f"edges of '{self.name}' have shape {self.sizes.shape}; {wanted[0]} targets and {wanted[1]} sources "
                f"need {wanted}"
            )
        _check_sizes(self.entries, self.name)
        for side, units in (("sources", self.sources), ("targets", self.targets)):
            if np.any(np.diff(units) <= 0) and len(np.unique(units)) != len(units):
                raise GraphError(f"a unit stands twice in the {side} of '{self.name}'; add its edges up first")

    @property
    def entries(self) -> Float[np.ndarray, "..."]:
        """The stored sizes: the whole matrix, or the entries of a sparse one."""
        return self.sizes if isinstance(self.sizes, np.ndarray) else self.sizes.data

    @property
    def n_edges(self) -> int:
        """Number of sizes above zero."""
        return int(np.count_nonzero(self.entries))

    def sums(self) -> tuple[Float[np.ndarray, " targets"], Float[np.ndarray, " sources"]]:
        """Total size at each target and at each source, in float64."""
        if isinstance(self.sizes, np.ndarray):
            return self.sizes.sum(axis=1, dtype=np.float64), self.sizes.sum(axis=0, dtype=np.float64)
        n_targets, n_sources = self.sizes.shape
        rows = np.repeat(np.arange(n_targets), np.diff(self.sizes.indptr))
        at_targets = np.bincount(rows, weights=self.sizes.data, minlength=n_targets)
        at_sources = np.bincount(self.sizes.indices, weights=self.sizes.data, minlength=n_sources)
        return at_targets.astype(np.float64), at_sources.astype(np.float64)  # whole numbers where there is no edge

    def between(self, rows: Bool[np.ndarray, " targets"], columns: Bool[np.ndarray, " sources"]) -> Block:
        """The part of the block between some of its targets and some of its sources."""
        if rows.all() and columns.all():
            return self
        sizes = self.sizes[np.flatnonzero(rows)][:, np.flatnonzero(columns)]
        return Block(self.sources[columns], self.targets[rows], sizes, self.name)

    def without_loops(self) -> Block:
        """The same block, with zero where an edge would join a unit to itself."""
        common, rows, columns = np.intersect1d(self.targets, self.sources, return_indices=True)
        if not len(common) or not np.any(self.sizes[rows, columns]):
            return self
        sizes = self.sizes.copy() if isinstance(self.sizes, np.ndarray) else self.sizes.tolil()
        sizes[rows, columns] = 0
        return Block(self.sources, self.targets, sizes if isinstance(sizes, np.ndarray) else sizes.tocsr(), self.name)


@dataclass(frozen=True, eq=False)
class UnitGraph:
    """Undirected graph of units, kept in the blocks it comes in; nobody builds an n x n matrix unless asked.

    Units are numbered as in the wiring. A unit without an edge stays in the graph and is isolated.
    Where two blocks hold the same pair of units their sizes add up. An edge from a unit to itself does not count.

    Raises:
        GraphError: If a block names a unit, or `group_of` a group, that is not there.
    """

    blocks: tuple[Block, ...]
    group_of: Int[np.ndarray, " units"]
    group_names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.group_of) and not 0 <= self.group_of.min() <= self.group_of.max() < len(self.group_names):
            raise GraphError(f"group_of must hold indices into the {len(self.group_names)} group names")
        for block in self.blocks:
            for units in (block.sources, block.targets):
                if len(units) and not 0 <= units.min() <= units.max() < self.n_units:
                    raise GraphError(
                        f"'{block.name}' joins units {units.min()} to {units.max()}; the graph has {self.n_units} "
                        "units, numbered from 0"
                    )
        object.__setattr__(self, "blocks", tuple(block.without_loops() for block in self.blocks))

    @property
    def n_units(self) -> int:
        """Number of units, isolated ones too."""
        return len(self.group_of)

    @cached_property
    def n_edges(self) -> int:
        """Number of edges; parallel ones in different blocks count each."""
        return sum(block.n_edges for block in self.blocks)

    @cached_property
    def degrees(self) -> Float[np.ndarray, " units"]:
        """Total size of the edges at each unit, in float64."""
        degrees = np.zeros(self.n_units)
        for block in self.blocks:
            at_targets, at_sources = block.sums()
            degrees[block.targets] += at_targets  # a side holds no unit twice
            degrees[block.sources] += at_sources
        return degrees

    @cached_property
    def connectivity(self) -> Connectivity:
        """Which units hang together, and whether two colours are enough."""
        return connectivity(self.blocks, self.degrees)

    @property
    def components(self) -> Int[np.ndarray, " units"]:
        """Connected component of each unit, the largest (in units) first; -1 for an isolated unit."""
        return self.connectivity.components

    @property
    def colours(self) -> Int[np.ndarray, " units"] | None:
        """0 or 1 for each unit, so that every edge joins both colours (-1: isolated); None if that cannot be."""
        return self.connectivity.colours

    @property
    def is_bipartite(self) -> bool:
        """Whether two colours are enough: so for every layered network, and for most with residual streams."""
        return self.colours is not None

    @property
    def isolated(self) -> Int[np.ndarray, " isolated"]:
        """Units without an edge."""
        return np.flatnonzero(self.components < 0)

    def adjacency(self) -> sp.csr_array:
        """The n x n matrix: symmetric, >= 0, zero diagonal, parallel edges added up; float64."""
        parts = [_coordinates(block) for block in self.blocks]
        if not parts:
            return sp.csr_array((self.n_units, self.n_units))
        rows, columns, sizes = (np.concatenate(several) for several in zip(*parts, strict=True))
        half = sp.coo_array((sizes, (rows, columns)), shape=(self.n_units, self.n_units)).tocsr()
        return (half + half.T).tocsr()

    def induced(self, units: Int[np.ndarray, " some"]) -> UnitGraph:
        """The graph with only the edges between `units`; the others stay, isolated."""
        is_kept = np.zeros(self.n_units, dtype=bool)
        is_kept[units] = True
        return UnitGraph(
            tuple(block.between(is_kept[block.targets], is_kept[block.sources]) for block in self.blocks),
            self.group_of,
            self.group_names,
        )

    def __repr__(self) -> str:
        kind = "bipartite" if self.is_bipartite else "not bipartite"
        return (
            f"UnitGraph({self.n_units} units in {len(self.group_names)} groups, {self.n_edges} edges in "
            f"{len(self.blocks)} blocks, {self.connectivity.n_components} components, {len(self.isolated)} isolated, "
            f"{kind})"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{_escaped(block.name)}</td><td>{len(block.sources)}</td><td>{len(block.targets)}</td>"
            f"<td>{block.n_edges}</td></tr>"
            for block in self.blocks
        )
        head = "<tr><th>block</th><th>sources</th><th>targets</th><th>edges</th></tr>"
        return f"<p>{_escaped(repr(self))}</p><table>{head}{rows}</table>"


def _check_sizes(sizes: Float[np.ndarray, "..."], name: str) -> None:
    if not np.issubdtype(sizes.dtype, np.floating):
        raise GraphError(f"edge sizes of '{name}' must be floating point, got {sizes.dtype}")
    if not sizes.size:
        return
    lowest, highest = sizes.min(), sizes.max()  # NaN comes through both
    if np.isfinite(lowest) and np.isfinite(highest):
        if lowest < 0:
            raise GraphError(f"edge sizes of '{name}' must be >= 0, got {lowest}; take absolute values")
        return
    n_bad = int(sizes.size - np.isfinite(sizes).sum())
    raise GraphError(f"{n_bad} of {sizes.size} edge sizes of '{name}' are NaN or infinite; repair its weights first")


def _coordinates(block: Block) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if isinstance(block.sizes, np.ndarray):
        rows, columns = np.nonzero(block.sizes)
        sizes = block.sizes[rows, columns]
    else:
        entries = block.sizes.tocoo()
        kept = entries.data != 0
        rows, columns, sizes = entries.row[kept], entries.col[kept], entries.data[kept]
    return block.targets[rows], block.sources[columns], sizes.astype(np.float64)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def checked_graph(graph: object) -> UnitGraph:
    """The graph that was given.

    Raises:
        GraphError: If it is none.
    """
    if not isinstance(graph, UnitGraph):
        raise GraphError(f"a UnitGraph is wanted, got {type(graph).__name__}; make one with weight_graph(wiring)")
    return graph
