"""How is the network itself written down: its layers, units, strongest weights and clusters?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int
from torch import nn

from modscope.graph.unit_graph import Block, UnitGraph
from modscope.partition.partition import Partition
from modscope.tasks.task import Evaluation, Task
from modscope.wiring.wiring import Wiring

N_EDGES = 1800  # as many as a picture can show
N_UNITS = 100_000  # above, units are not written one by one


def model_content(model: nn.Module, name: str, wiring: Wiring, graph: UnitGraph) -> dict[str, Any]:
    """The network in numbers."""
    parameters = [parameter.detach() for parameter in model.parameters()]
    return {
        "name": name,
        "n_parameters": sum(parameter.numel() for parameter in parameters),
        "n_nonzero": sum(int(parameter.count_nonzero()) for parameter in parameters if not parameter.is_meta),
        "n_units": wiring.n_units,
        "n_isolated": int((graph.degrees == 0).sum()),
        "unsupported": list(wiring.warnings),
    }


def task_content(tasks: Sequence[Task], evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """The tasks, with the accuracy of the whole network."""
    return [
        {"id": task.name, "label": task.name, "accuracy": evaluation.accuracy}
        for task, evaluation in zip(tasks, evaluations, strict=True)
    ]


def layers_content(wiring: Wiring) -> list[dict[str, Any]]:
    """Unit groups, in order of depth."""
    return [{"id": group.name, "kind": group.kind, "n": group.size} for group in wiring.groups]


def modules_content(wiring: Wiring, partition: Partition) -> list[dict[str, Any]]:
    """Clusters: how many units, and how many of each unit group."""
    counts = np.zeros((partition.n_clusters, len(wiring.groups)), dtype=np.int64)
    places = places_of(partition)
    is_in = places >= 0
    np.add.at(counts, (places[is_in], wiring.group_of[is_in]), 1)
    return [{"n": int(row.sum()), "by_layer": row.tolist()} for row in counts]


def places_of(partition: Partition) -> Int[np.ndarray, " units"]:
    """The place of every unit's cluster among all clusters, which may be numbered with gaps; -1 = in none."""
    return np.where(partition.labels >= 0, np.searchsorted(partition.clusters, partition.labels), -1)


def units_content(wiring: Wiring, graph: UnitGraph, partition: Partition) -> dict[str, Any]:
    """One entry per unit: its group, its number in the group, its cluster, its degree."""
    if wiring.n_units > N_UNITS:
        return {"why": f"{wiring.n_units:,} units are too many to write one by one"}
    index = np.empty(wiring.n_units, dtype=np.int64)
    for group in wiring.groups:
        index[group.unit_ids] = np.arange(group.size)
    return {
        "layer": wiring.group_of.tolist(),
        "index": index.tolist(),
        "module": places_of(partition).tolist(),
        "degree": [float(f"{degree:.6g}") for degree in graph.degrees],
    }


def edges_content(graph: UnitGraph) -> dict[str, Any]:
    """The strongest edges of the graph, as many of every block, so that no layer is left out."""
    strongest = [_strongest(block, -(-N_EDGES // len(graph.blocks))) for block in graph.blocks]
    if not strongest:
        return {"source": [], "target": [], "weight": [], "n_total": 0}
    source, target, size = (np.concatenate([part[axis] for part in strongest]) for axis in range(3))
    return {
        "source": source.tolist(),
        "target": target.tolist(),
        "weight": [float(f"{weight:.6g}") for weight in size],
        "n_total": sum(_n_edges(block) for block in graph.blocks),
    }


def _n_edges(block: Block) -> int:
    sizes = block.sizes
    return int(sizes.count_nonzero()) if isinstance(sizes, sp.csr_array) else int(np.count_nonzero(sizes))


def _strongest(block: Block, n_edges: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sources, targets and sizes of the largest edges of one block."""
    entries = sp.coo_array(block.sizes)
    rows, columns = entries.coords
    data = entries.data
    kept = np.argsort(-data, kind="stable")[:n_edges]
    kept = kept[data[kept] > 0]
    return block.sources[columns[kept]], block.targets[rows[kept]], data[kept]
