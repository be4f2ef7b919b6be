"""How are clusters numbered, and what is said about them?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from modscope.graph.unit_graph import UnitGraph


def numbered_by_first_unit(labels: Int[np.ndarray, " units"]) -> Int[np.ndarray, " units"]:
    """The same clusters, numbered 0, 1, ... in the order of their first units; -1 stays."""
    is_kept = labels >= 0
    names, first = np.unique(labels[is_kept], return_index=True)
    number = np.empty(int(names.max(initial=-1)) + 1, dtype=np.int64)
    number[names[np.argsort(first)]] = np.arange(len(names))
    numbered: np.ndarray = labels.astype(np.int64)
    numbered[is_kept] = number[labels[is_kept]]
    return numbered


def notes_on(graph: UnitGraph, n_clusters: int | None = None) -> tuple[str, ...]:
    """What a reader of a partition of the graph should know: units left out, separate components."""
    notes = []
    n_components = graph.connectivity.n_components
    if len(graph.isolated):
        notes.append(f"{len(graph.isolated)} units have no edges and are left out (label -1)")
    if n_clusters is not None and n_components >= n_clusters > 1:
        notes.append(f"{n_components} separate components for {n_clusters} clusters: components were put together")
    elif n_components > 1:
        notes.append(f"the graph falls into {n_components} separate components, which count as found clusters")
    return tuple(notes)


def packed(
    components: Int[np.ndarray, " kept"], degrees: Float[np.ndarray, " kept"], n_clusters: int
) -> Int[np.ndarray, " kept"]:
    """Whole components put into clusters, the largest volume first, each into the emptiest cluster."""
    volumes = np.bincount(components, weights=degrees)
    cluster_of = np.empty(len(volumes), dtype=np.int64)
    filled = np.zeros(n_clusters)
    for component in np.argsort(-volumes, kind="stable"):
        emptiest = int(filled.argmin())
        cluster_of[component] = emptiest
        filled[emptiest] += volumes[component]
    of_units: np.ndarray = cluster_of[components]
    return of_units
