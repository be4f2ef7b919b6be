"""Which parts of a network are removed, and which random ones are they compared with?"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from modscope.errors import LesionError
from modscope.lesions.engine import Lesion, LesionEngine
from modscope.partition.partition import Partition
from modscope.randomness import numbered
from modscope.wiring.wiring import Wiring

N_FIRST = 99  # random partitions that every part gets; effects and z come from these
N_PER_ROUND = 100
H = 10  # a test stops at so many random parts that hurt as much


@dataclass(frozen=True, eq=False)
class Part:
    """A set of units that is removed: a sub-cluster, or all hidden units of a cluster (`group` None)."""

    cluster: int
    group: str | None
    unit_ids: Int[np.ndarray, " units"]

    @property
    def name(self) -> str:
        """How it is called in tables."""
        return f"module {self.cluster}" if self.group is None else f"module {self.cluster} in {self.group}"


@dataclass(frozen=True, eq=False)
class Controls:
    """Drops of the parts, and of random ones in their place."""

    intact: Float[np.ndarray, " tasks"]
    drops: Float[np.ndarray, "parts tasks"]
    random_drops: Float[np.ndarray, "samples parts tasks"]  # NaN where all tests of a part had stopped


def control_drops(
    engine: LesionEngine,
    wiring: Wiring,
    partition: Partition,
    parts: list[Part],
    *,
    sign: int,
    n_samples: int,
    seed: int,
    executor: Executor | None,
) -> Controls:
    """What is lost with each part, and with random units in its place, from whole random partitions.

    Labels are permuted over the alive units of each group, so that a random part has as many units in every group as
    the part itself. A part whose tests have all met `H` random ones that hurt as much gets no further samples.

    Args:
        engine: Runs the lesions.
        wiring: Says which units are of one group.
        partition: Says which units are alive (label >= 0).
        parts: What is removed.
        sign: 1 if less of the metric is a loss, -1 if more is.
        n_samples: Random partitions at most.
        seed: Draws them; number i is the same for any number of workers.
        executor: Where lesions are run.
    """
    intact = engine.scores([np.zeros(wiring.n_units, dtype=bool)])[0]
    observed = [lesion_of(part.unit_ids, wiring.n_units) for part in parts]
    drops = sign * (intact - engine.scores(observed, executor=executor, description="lesions of clusters"))
    random_drops = np.full((n_samples, *drops.shape), np.nan)
    is_active = np.ones(len(parts), dtype=bool)
    start = 0
    while start < n_samples and is_active.any():
        stop = min(n_samples, N_FIRST if start == 0 else start + N_PER_ROUND)
        chosen = np.flatnonzero(is_active)
        places = [random_places(wiring, partition, seed, index) for index in range(start, stop)]
        lesions = [lesion_of(moved[parts[i].unit_ids], wiring.n_units) for moved in places for i in chosen]
        scores = engine.scores(lesions, executor=executor, description="lesions of random units")
        random_drops[start:stop, chosen] = sign * (intact - scores).reshape(stop - start, len(chosen), -1)
        is_active = (at_least(random_drops[:stop], drops).sum(axis=0) < H).any(axis=1)
        start = stop
    return Controls(intact, drops, random_drops)


def at_least(random_drops: np.ndarray, drops: np.ndarray) -> Bool[np.ndarray, "..."]:
    """Which random drops are as large as the observed ones, or larger; sums in another order are ties."""
    return random_drops >= drops - 1e-9


def parts_of(wiring: Wiring, partition: Partition, *, min_size: int = 2, max_share: float = 0.99) -> list[Part]:
    """Sub-clusters of hidden unit groups within the size limits, then whole clusters (their hidden units).

    Raises:
        LesionError: If the partition is of other units, or has no hidden unit in a cluster.
    """
    if len(partition.labels) != wiring.n_units:
        raise LesionError(f"the partition has {len(partition.labels)} units, the wiring {wiring.n_units}")
    is_hidden = hidden_units(wiring)
    n_alive = np.bincount(wiring.group_of[partition.labels >= 0], minlength=len(wiring.groups))
    parts = [
        Part(sub.cluster, wiring.groups[sub.group].name, sub.unit_ids)
        for sub in partition.sub_clusters(wiring.group_of)
        if is_hidden[sub.unit_ids[0]] and min_size <= sub.size <= max_share * n_alive[sub.group]
    ]
    clusters = [Part(int(c), None, np.flatnonzero((partition.labels == c) & is_hidden)) for c in partition.clusters]
    found = [cluster for cluster in clusters if len(cluster.unit_ids)]
    if not found:
        raise LesionError("no cluster has a hidden unit, so that there is nothing to silence")
    return parts + found


def hidden_units(wiring: Wiring) -> Bool[np.ndarray, " units"]:
    """Which units are neither inputs nor outputs of the network."""
    hidden = [index for index, group in enumerate(wiring.groups) if group.kind in ("hidden", "stream")]
    return np.isin(wiring.group_of, hidden)


def random_places(wiring: Wiring, partition: Partition, seed: int, index: int) -> Int[np.ndarray, " units"]:
    """Unit -> unit: a permutation of the alive units of each group; dead units stay put."""
    rng = numbered(seed, "random units", index)
    places = np.arange(wiring.n_units)
    for group in wiring.groups:
        alive = group.unit_ids[partition.labels[group.unit_ids] >= 0]
        places[alive] = rng.permutation(alive)
    return places


def lesion_of(unit_ids: Int[np.ndarray, " chosen"], n_units: int) -> Lesion:
    """Which units are silenced, one bool per unit."""
    lesion = np.zeros(n_units, dtype=bool)
    lesion[unit_ids] = True
    return lesion
