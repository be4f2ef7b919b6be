"""Which clusters does the program of Filan et al. find?"""

from __future__ import annotations

import warnings

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int

from modscope.graph.unit_graph import UnitGraph

MANY_UNITS, N_STARTS, N_STARTS_OF_MANY = 2000, 25, 100


def official_labels(
    graph: UnitGraph, kept: Int[np.ndarray, " kept"], n_clusters: int, seed: int
) -> Int[np.ndarray, " kept"]:
    """Their labels of the units that have edges (`kept`): scikit-learn's spectral clustering with their settings.

    Source: Filan et al. 2021, section 2.
    """
    from sklearn.cluster import SpectralClustering

    adjacency = sp.csr_matrix(graph.adjacency()[kept][:, kept])
    adjacency.indices, adjacency.indptr = adjacency.indices.astype(np.int32), adjacency.indptr.astype(np.int32)
    clustering = SpectralClustering(
        n_clusters=n_clusters,
        eigen_solver="arpack",
        affinity="precomputed",
        assign_labels="kmeans",
        n_init=N_STARTS_OF_MANY if len(kept) > MANY_UNITS else N_STARTS,
        random_state=np.random.RandomState(seed % 2**32),  # their generator: the same draws
    )
    with warnings.catch_warnings():
        # several components are reported in the partition's notes
        warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
        labels: np.ndarray = clustering.fit_predict(adjacency)
    return labels.astype(np.int64)
