"""What is the undirected graph of a network's units?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int


@dataclass(frozen=True, eq=False)
class Block:
    """Edges between two sets of units: `sizes[i, j] >= 0` joins `targets[i]` and `sources[j]`; zero is no edge.

    One block per connection (a layer's weights), so that a null model can draw each layer anew.
    Within a block no unit stands twice on one side.
    """

    sources: Int[np.ndarray, " sources"]
    targets: Int[np.ndarray, " targets"]
    sizes: Float[np.ndarray, "targets sources"] | sp.csr_array  # float32
    name: str


@dataclass(frozen=True, eq=False)
class UnitGraph:
    """Undirected graph of units, kept in the blocks it comes in; nobody builds an n x n matrix unless asked.

    Units are numbered as in the wiring. A unit without an edge stays in the graph and is isolated.
    Where two blocks hold the same pair of units their sizes add up. An edge from a unit to itself does not count.
    """

    blocks: tuple[Block, ...]
    group_of: Int[np.ndarray, " units"]
    group_names: tuple[str, ...]
