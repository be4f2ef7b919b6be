"""What does each stage of an analysis do, and when has it nothing to do?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial

import numpy as np
from torch import nn

from modscope.alignment import Alignment, alignment
from modscope.analysis.verdicts import NO_TASKS
from modscope.errors import LesionError, MaskError, PartitionError
from modscope.graph.unit_graph import UnitGraph
from modscope.jobs.executors import map_in_order
from modscope.lesions.importance import Importance, importance
from modscope.masks.controls import MaskControls, mask_controls
from modscope.masks.learner import learn_masks
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.specialization import Specialization, specialization
from modscope.nulls import NullModel
from modscope.partition.bands import Sweep
from modscope.partition.clusterability import Clusterability, clusterability
from modscope.partition.dust import Partitioner
from modscope.partition.sweep import sweep_n_clusters
from modscope.tasks.task import Task
from modscope.wiring.wiring import Wiring

N_NULL_SAMPLES = 100  # of each null model of structure
N_REMOVALS = 39  # of random weights, per pair of tasks
N_SWEEP_SAMPLES = 39  # of each null model, shared by all numbers of clusters


def structure_of(
    graph: UnitGraph,
    partitioner: Partitioner,
    nulls: str | NullModel | Sequence[str | NullModel],
    n_samples: int | None,
    seed: int,
    executor: Executor | None,
) -> Clusterability:
    """The clusters, and their n-cut against the null models."""
    n_samples = N_NULL_SAMPLES if n_samples is None else n_samples
    return clusterability(graph, partitioner, nulls=nulls, n_samples=n_samples, rng=seed, executor=executor)


def sweep_of(
    graph: UnitGraph,
    partitioner: Partitioner,
    numbers: Sequence[int] | None,
    nulls: str | NullModel | Sequence[str | NullModel],
    n_samples: int | None,
    seed: int,
    executor: Executor | None,
) -> tuple[Sweep | None, str]:
    """The test of structure at other numbers of clusters; or None, with the reason.

    Raises:
        PartitionError: If the network cannot be clustered into the numbers that the caller gave.
    """
    if numbers is None:
        own = getattr(partitioner, "n_clusters", None)
        if own is None:
            return None, f"{type(partitioner).__name__} finds the number of modules by itself."
        wanted = numbers_around(own, int(np.count_nonzero(graph.components >= 0)))
    else:
        wanted = tuple(numbers)
    if not wanted:
        return None, "Other numbers of modules were not tried in this run."
    n_samples = N_SWEEP_SAMPLES if n_samples is None else n_samples
    try:
        sweep = sweep_n_clusters(
            graph, wanted, partitioner=partitioner, nulls=nulls, n_samples=n_samples, rng=seed, executor=executor
        )
    except PartitionError as error:
        if numbers is not None:
            raise
        return None, str(error)
    return sweep, ""


def numbers_around(n_clusters: int, n_units: int) -> tuple[int, ...]:
    """Numbers of clusters from half to twice the chosen one, each with two units a cluster at least.

    >>> numbers_around(4, 500), numbers_around(12, 500)
    ((2, 3, 4, 6, 8), (6, 9, 12, 18, 24))
    """
    numbers = {round(n_clusters * share) for share in (0.5, 0.75, 1, 1.5, 2)}
    return tuple(sorted(k for k in numbers if 2 <= k <= n_units // 2))


def learned_masks(
    model: nn.Module,
    wiring: Wiring,
    tasks: Sequence[Task],
    learner: Callable[..., Mask] | None,
    n_seeds: int,
    seed: int,
    executor: Executor | None,
) -> MaskSet | None:
    """The masks of every task; None without tasks."""
    if not tasks:
        return None
    return learn_masks(model, tasks, learner, n_seeds=n_seeds, wiring=wiring, rng=seed, executor=executor)


def controls_of(
    model: nn.Module,
    masks: MaskSet | None,
    tasks: Sequence[Task],
    learner: Callable[..., Mask] | None,
    seed: int,
    executor: Executor | None,
) -> tuple[MaskControls, ...]:
    """Whether each task's mask found something: the controls without which it says nothing about the network."""
    if masks is None:
        return ()
    work = partial(_control, model, masks, learner, seed)
    description = "masks on random weights"
    return tuple(map_in_order(work, tasks, executor=executor, description=description, runs_a_model=True))


def _control(
    model: nn.Module, masks: MaskSet, learner: Callable[..., Mask] | None, seed: int, task: Task
) -> MaskControls:
    return mask_controls(model, masks[task.name], task, learner=learner, rng=seed)


def specialization_of(
    model: nn.Module,
    masks: MaskSet,
    tasks: Sequence[Task],
    failed: Mapping[str, str],
    n_samples: int | None,
    seed: int,
    executor: Executor | None,
) -> Specialization:
    """What masks and inverse masks can do."""
    n_removals = N_REMOVALS if n_samples is None else n_samples
    return specialization(model, masks, tasks, n_samples=n_removals, failed=failed, rng=seed, executor=executor)


def importance_of(
    model: nn.Module,
    wiring: Wiring,
    structure: Clusterability,
    tasks: Sequence[Task],
    n_samples: int | None,
    seed: int,
    executor: Executor | None,
) -> tuple[Importance | None, str]:
    """Importance; or None, with the reason."""
    if not tasks:
        return None, NO_TASKS
    try:
        partition = structure.partition
        return importance(model, wiring, partition, tasks, n_samples=n_samples, rng=seed, executor=executor), ""
    except LesionError as error:
        return None, str(error)


def bridge_of(
    model: nn.Module,
    masks: MaskSet | None,
    tasks: Sequence[Task],
    wiring: Wiring,
    structure: Clusterability,
    n_samples: int | None,
    seed: int,
) -> tuple[Alignment | None, str]:
    """The bridge, for the tasks whose masks found something; or None, with the reason."""
    if masks is None:
        return None, NO_TASKS
    if not tasks:
        return None, "The masks say nothing about this network."
    masks = MaskSet({task.name: masks.seeds(task.name) for task in tasks})
    try:
        partition = structure.partition
        return alignment(masks, wiring, partition, model=model, tasks=tasks, n_samples=n_samples, rng=seed), ""
    except (MaskError, PartitionError) as error:
        return None, str(error)
