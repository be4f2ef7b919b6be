"""Which clusters does modularity show, however many there are?"""

from __future__ import annotations

import ctypes.util
import math
import sys
import threading
from dataclasses import KW_ONLY, dataclass

import numpy as np
import scipy.sparse as sp

from modscope.errors import PartitionError
from modscope.graph.unit_graph import UnitGraph, checked_graph
from modscope.partition.labels import notes_on, numbered_by_first_unit
from modscope.partition.partition import Partition
from modscope.randomness import Rng, seed_of

_c_rand = threading.Lock()  # one generator for the whole process: nobody else may draw between seed and result


@dataclass(frozen=True)
class Leiden:
    """Leiden clustering: it raises Newman's modularity, and finds the number of clusters by itself.

    So its n-cut cannot be compared with the papers', who ask for a fixed number. Isolated units get label -1; clusters
    are numbered in the order of their first units. Threads take turns. Needs the extra `communities` (scikit-network).

    Args:
        resolution: Above 1: more and smaller clusters; below: fewer and larger ones.

    Raises:
        PartitionError: If the resolution is not above zero, or scikit-network is not installed.

    Source: Traag, Waltman & van Eck 2019.
    """

    resolution: float = 1.0
    _: KW_ONLY
    min_gain: float = 1e-5  # of modularity, for a pass to be worth another

    def __post_init__(self) -> None:
        if not (self.resolution > 0 and math.isfinite(self.resolution)):
            raise PartitionError(f"resolution must be above 0, got {self.resolution}")

    def __call__(self, graph: UnitGraph, *, rng: Rng = 0) -> Partition:
        """The clusters of a graph."""
        try:
            from sknetwork.clustering import Leiden as Clustering
        except ImportError as error:
            raise PartitionError(
                "Leiden needs scikit-network; install modscope with the extra 'communities'"
            ) from error
        kept = np.flatnonzero(checked_graph(graph).components >= 0)
        labels = np.full(graph.n_units, -1, dtype=np.int64)
        if len(kept):
            adjacency = sp.csr_matrix(graph.adjacency()[kept][:, kept])
            seed = int(seed_of(rng) % 2**32)
            clustering = Clustering(
                resolution=self.resolution, tol_optimization=self.min_gain, shuffle_nodes=True, random_state=seed
            )
            with _c_rand:
                _seed_c_library(seed)
                labels[kept] = clustering.fit_predict(adjacency)
        return Partition(numbered_by_first_unit(labels), notes_on(graph))


def _seed_c_library(seed: int) -> None:
    """Seed C's `rand`: scikit-network's refinement draws from it, whatever `random_state` says."""
    name = "ucrtbase" if sys.platform == "win32" else ctypes.util.find_library("c")
    ctypes.CDLL(name).srand(ctypes.c_uint(seed))
