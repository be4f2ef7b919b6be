"""Is a trained neural network made of parts, what do the parts do, and is that more than chance?

    import modscope as ms

    wiring = ms.read_wiring(model, example_inputs)      # units and connections
    partition = ms.Spectral(n_clusters=12)(ms.weight_graph(wiring))
    run = ms.analyze(model, example_inputs, tasks)      # everything, in one call
    ms.write_report(run, "report.html")

Every public name is found here; each is imported when it is first used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors: the same names as below
    from modscope.alignment import Alignment, alignment
    from modscope.analysis.analyze import analyze
    from modscope.analysis.run import Run
    from modscope.analysis.verdicts import Verdict
    from modscope.errors import (
        DataError,
        GraphError,
        JobError,
        LesionError,
        MaskError,
        ModscopeError,
        PartitionError,
        RecordError,
        StatisticsError,
        StudyError,
        TaskError,
        WiringError,
    )
    from modscope.graph.activations import activation_graph
    from modscope.graph.unit_graph import UnitGraph
    from modscope.graph.weights import chain_graph, weight_graph
    from modscope.lesions.importance import Importance, importance
    from modscope.lesions.silence import silenced
    from modscope.masks.applied import applied
    from modscope.masks.controls import MaskControls, mask_controls
    from modscope.masks.faithfulness import Faithfulness, faithfulness
    from modscope.masks.learner import MaskLearner, learn_masks
    from modscope.masks.mask import Mask, MaskSet
    from modscope.masks.metric_table import MetricTable, mask_metrics
    from modscope.masks.metrics import io_min, iou, remaining, shared, transfer_share
    from modscope.masks.overlap import Overlap, overlap
    from modscope.masks.pairs import evaluate_on_pairs
    from modscope.masks.random_groups import RandomGroups
    from modscope.masks.specialization import Specialization, specialization
    from modscope.nulls.registry import NULL_MODELS, NullModel
    from modscope.partition.bands import Sweep
    from modscope.partition.clusterability import Clusterability, clusterability
    from modscope.partition.dust import WithoutDust
    from modscope.partition.leiden import Leiden
    from modscope.partition.partition import Partition
    from modscope.partition.quality import n_cut, newman_modularity
    from modscope.partition.spectral import Spectral
    from modscope.partition.suggestion import Suggestion, suggest_n_clusters
    from modscope.partition.sweep import sweep_n_clusters
    from modscope.progress import progress
    from modscope.records import Record
    from modscope.report.page import write_report
    from modscope.statistics.comparison import Comparison, compare
    from modscope.tasks import losses
    from modscope.tasks.task import Evaluation, Task, evaluate
    from modscope.wiring.trace import read_wiring
    from modscope.wiring.wiring import Connection, UnitGroup, Wiring

__version__ = "0.1.0"

_NAMES_BY_MODULE = {
    "modscope.alignment": "Alignment alignment",
    "modscope.analysis.analyze": "analyze",
    "modscope.analysis.run": "Run",
    "modscope.analysis.verdicts": "Verdict",
    "modscope.errors": (
        "DataError GraphError JobError LesionError MaskError ModscopeError PartitionError RecordError "
        "StatisticsError StudyError TaskError WiringError"
    ),
    "modscope.graph.activations": "activation_graph",
    "modscope.graph.unit_graph": "UnitGraph",
    "modscope.graph.weights": "chain_graph weight_graph",
    "modscope.lesions.importance": "Importance importance",
    "modscope.lesions.silence": "silenced",
    "modscope.masks.applied": "applied",
    "modscope.masks.controls": "MaskControls mask_controls",
    "modscope.masks.faithfulness": "Faithfulness faithfulness",
    "modscope.masks.learner": "MaskLearner learn_masks",
    "modscope.masks.mask": "Mask MaskSet",
    "modscope.masks.metric_table": "MetricTable mask_metrics",
    "modscope.masks.metrics": "io_min iou remaining shared transfer_share",
    "modscope.masks.overlap": "Overlap overlap",
    "modscope.masks.pairs": "evaluate_on_pairs",
    "modscope.masks.random_groups": "RandomGroups",
    "modscope.masks.specialization": "Specialization specialization",
    "modscope.nulls.registry": "NULL_MODELS NullModel",
    "modscope.partition.bands": "Sweep",
    "modscope.partition.clusterability": "Clusterability clusterability",
    "modscope.partition.dust": "WithoutDust",
    "modscope.partition.leiden": "Leiden",
    "modscope.partition.partition": "Partition",
    "modscope.partition.quality": "n_cut newman_modularity",
    "modscope.partition.spectral": "Spectral",
    "modscope.partition.suggestion": "Suggestion suggest_n_clusters",
    "modscope.partition.sweep": "sweep_n_clusters",
    "modscope.progress": "progress",
    "modscope.records": "Record",
    "modscope.report.page": "write_report",
    "modscope.statistics.comparison": "Comparison compare",
    "modscope.tasks": "losses",
    "modscope.tasks.task": "Evaluation Task evaluate",
    "modscope.wiring.trace": "read_wiring",
    "modscope.wiring.wiring": "Connection UnitGroup Wiring",
}

__all__ = [
    "Alignment",
    "Clusterability",
    "Comparison",
    "Connection",
    "DataError",
    "Evaluation",
    "Faithfulness",
    "GraphError",
    "Importance",
    "JobError",
    "Leiden",
    "LesionError",
    "Mask",
    "MaskControls",
    "MaskError",
    "MaskLearner",
    "MaskSet",
    "MetricTable",
    "ModscopeError",
    "NULL_MODELS",
    "NullModel",
    "Overlap",
    "Partition",
    "PartitionError",
    "RandomGroups",
    "Record",
    "RecordError",
    "Run",
    "Specialization",
    "Spectral",
    "StatisticsError",
    "StudyError",
    "Suggestion",
    "Sweep",
    "Task",
    "TaskError",
    "UnitGraph",
    "UnitGroup",
    "Verdict",
    "Wiring",
    "WiringError",
    "WithoutDust",
    "activation_graph",
    "alignment",
    "analyze",
    "applied",
    "chain_graph",
    "clusterability",
    "compare",
    "evaluate",
    "evaluate_on_pairs",
    "faithfulness",
    "importance",
    "io_min",
    "iou",
    "learn_masks",
    "losses",
    "mask_controls",
    "mask_metrics",
    "n_cut",
    "newman_modularity",
    "overlap",
    "progress",
    "read_wiring",
    "remaining",
    "shared",
    "silenced",
    "specialization",
    "suggest_n_clusters",
    "sweep_n_clusters",
    "transfer_share",
    "weight_graph",
    "write_report",
]

_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'modscope' has no attribute '{name}'")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


class _Package(ModuleType):
    """The package, in which a public name beats the submodule of that name.

    Importing `modscope.progress` would make `modscope.progress` the module; the function is what users call.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and name in _MODULE_OF):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
