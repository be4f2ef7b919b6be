"""How is a whole network analysed in one call?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from torch import nn

from modscope.analysis.answer_content import (
    bridge_content,
    lesions_content,
    masks_content,
    structure_content,
    verdict_content,
)
from modscope.analysis.checks import check_losses, check_settings
from modscope.analysis.network_content import (
    edges_content,
    layers_content,
    model_content,
    modules_content,
    task_content,
    units_content,
)
from modscope.analysis.run import Results, Run
from modscope.analysis.stability_content import stability_content
from modscope.analysis.stages import (
    bridge_of,
    controls_of,
    importance_of,
    learned_masks,
    specialization_of,
    structure_of,
    sweep_of,
)
from modscope.analysis.texts import texts_content
from modscope.analysis.verdicts import (
    Verdict,
    bridge_verdict,
    function_verdict,
    importance_verdict,
    structure_verdict,
)
from modscope.calling import Inputs, check_model
from modscope.graph.weights import weight_graph
from modscope.masks.mask import Mask, MaskSet
from modscope.nulls import NullModel
from modscope.partition.clusterability import STRICTER, WEAKER
from modscope.partition.dust import Partitioner
from modscope.partition.spectral import Spectral
from modscope.randomness import Rng, seed_of
from modscope.tasks.task import Task, as_tasks, evaluate
from modscope.wiring.trace import read_wiring


def analyze(
    model: nn.Module,
    example_inputs: Inputs,
    tasks: Task | Sequence[Task] = (),
    *,
    partitioner: Partitioner | None = None,
    learner: Callable[..., Mask] | None = None,
    n_seeds: int = 2,
    nulls: str | NullModel | Sequence[str | NullModel] = (WEAKER, STRICTER),
    sweep: Sequence[int] | None = None,
    n_samples: int | None = None,
    rng: Rng = 0,
    executor: Executor | None = None,
    name: str | None = None,
) -> Run:
    """Everything in one call: function, structure, importance and the bridge, with a verdict on each.

    Args:
        model: Any module; it is left exactly as it was.
        example_inputs: A tensor, a tuple (positional) or a dict (keywords) that the model takes.
        tasks: One task or several. Without tasks only structure is tested.
        partitioner: Finds the clusters; `Spectral()` if not given.
        learner: Learns the masks; `MaskLearner()` if not given.
        n_seeds: Masks per task; two show how far two runs of one task agree, which p_specialize needs.
        nulls: Null models of structure; the verdict needs the two defaults.
        sweep: Further numbers of clusters at which structure is tested, for the report (`sweep_n_clusters`); if not
            given, five from half to twice the partitioner's; () = none.
        n_samples: Random draws of every test. If not given: 100 null samples of structure, 39 for the sweep, 39 random
            removals of weights per pair of tasks, and of all other tests the fewest that let one finding survive the
            correction.
        rng: Seed, or a generator that one seed is drawn from.
        executor: Where masks are learned and samples drawn; None = this process. Results do not depend on it.
        name: What the network is called; its class if not given.

    Raises:
        WiringError: If the model cannot be read, or does not take the example inputs.
        TaskError: If a task has no data, does not fit the model, or its loss is NaN.
        PartitionError: If there cannot be as many clusters as asked for.
        ModscopeError: If another setting makes no sense; all are looked at before any work is done.
    """
    model, tasks, seed = check_model(model), as_tasks(tasks), seed_of(rng)
    name = type(model).__name__ if name is None else name
    check_settings(partitioner, learner, sweep, n_seeds, n_samples, name)
    watch = _Stopwatch()
    with watch("wiring"):
        evaluations = [evaluate(model, task) for task in tasks]
        wiring = read_wiring(model, example_inputs)
        graph = weight_graph(wiring)
        check_losses(model, tasks, evaluations)
    partitioner = Spectral() if partitioner is None else partitioner
    with watch("structure"):
        structure = structure_of(graph, partitioner, nulls, n_samples, seed, executor)
    with watch("sweep"):
        swept, why_no_sweep = sweep_of(graph, partitioner, sweep, nulls, n_samples, seed, executor)
    with watch("masks"):
        masks = learned_masks(model, wiring, tasks, learner, n_seeds, seed, executor)
    with watch("function"):
        controls = controls_of(model, masks, tasks, learner, seed, executor)
        failed = {control.task: control.reason for control in controls if not control.passes}
        special = None if masks is None else specialization_of(model, masks, tasks, failed, n_samples, seed, executor)
    with watch("importance"):
        lesions, why_no_lesions = importance_of(model, wiring, structure, tasks, n_samples, seed, executor)
    with watch("bridge"):
        found = [task for task in tasks if task.name not in failed]
        bridge, why_no_bridge = bridge_of(model, masks, found, wiring, structure, n_samples, seed)

    verdicts = (
        function_verdict(special, failed),
        structure_verdict(structure),
        importance_verdict(lesions, why_no_lesions),
        bridge_verdict(bridge, why_no_bridge),
    )
    results = Results(wiring, graph, structure, controls, special, lesions, bridge, swept)
    content = {
        "run": {"id": name, "title": name, "seed": seed},
        "model": model_content(model, type(model).__name__, wiring, graph),
        "tasks": task_content(tasks, evaluations),
        **_content(results, masks, verdicts, why_no_sweep),
        "texts": texts_content(results, masks, seed),
    }
    return Run(name, verdicts, content, structure.partition, masks, results, watch.seconds)


def _content(results: Results, masks: MaskSet | None, verdicts: Sequence[Verdict], why_no_sweep: str) -> dict[str, Any]:
    """The parts of the record that come from results."""
    partition = results.clusterability.partition
    not_measured = {verdict.key: {"why": f"{verdict.sentence} {verdict.reason}"} for verdict in verdicts}
    return {
        "layers": layers_content(results.wiring),
        "modules": modules_content(results.wiring, partition),
        "units": units_content(results.wiring, results.graph, partition),
        "edges": edges_content(results.graph),
        "verdict": [verdict_content(verdict) for verdict in verdicts],
        "masks": not_measured["function"] if masks is None else masks_content(masks, results.specialization),
        "tests": structure_content(results.clusterability, results.sweep, why_no_sweep),
        "lesions": not_measured["importance"] if results.importance is None else lesions_content(results.importance),
        "bridge": not_measured["bridge"] if results.alignment is None else bridge_content(results.alignment),
        "stability": stability_content(results.clusterability, results.sweep, masks),
        "warnings": [{"level": "warn", "section": "network", "text": text} for text in results.wiring.warnings]
        + [{"level": "note", "section": "structure", "text": note} for note in partition.notes],
    }


class _Stopwatch:
    """Seconds of every stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = time.perf_counter() - began
