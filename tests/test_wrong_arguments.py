"""What does a caller hear who hands in something wrong? An error of ours: what was given, and what is wanted."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import modscope as ms

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


@pytest.fixture(scope="module")
def given():
    """A small model with everything that can be made from it."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    inputs = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    batches = [(inputs, inputs[:, :4].argmax(dim=1))]

    def task(name="task", **changes):
        usual = {"train": batches, "test": batches, "loss": F.cross_entropy, "correct": lambda o, t: o.argmax(1) == t}
        return ms.Task(name, **(usual | changes))

    wiring = ms.read_wiring(model, inputs[:1])
    graph = ms.weight_graph(wiring)
    partition = ms.Spectral(n_clusters=3)(graph, rng=0)
    mask = ms.Mask({"0.weight": torch.ones(16, 8, dtype=torch.bool), "2.weight": torch.ones(4, 16, dtype=torch.bool)})
    other = ms.Mask({"elsewhere": torch.ones(3, dtype=torch.bool)})
    return SimpleNamespace(**{key: value for key, value in locals().items() if key != "batches"}, batches=batches)


def entered(context):
    with context:
        pass


WIRING = {
    "a model by name": (lambda g: ms.read_wiring("resnet", g.inputs), "must be a torch.nn.Module, got str"),
    "a class": (lambda g: ms.read_wiring(nn.Linear, g.inputs), "call the class first"),
    "inputs of another width": (lambda g: ms.read_wiring(g.model, torch.ones(1, 9)), "(1, 9) float32"),
    "a list of inputs": (lambda g: ms.read_wiring(g.model, [1, 2]), "a tensor, a tuple"),
    "no model to analyze": (lambda g: ms.analyze(3, g.inputs, []), "must be a torch.nn.Module, got int"),
}
GRAPHS = {
    "the graph of a model": (lambda g: ms.weight_graph(g.model), "a Wiring is wanted, got Sequential"),
    "an unknown edge norm": (lambda g: ms.weight_graph(g.wiring, edge_norm="l7"), "must be one of l1, l2"),
    "layers that do not join": (lambda g: ms.chain_graph([np.ones((3, 4)), np.ones((2, 5))]), "reads 5 units"),
    "no layers": (lambda g: ms.chain_graph([]), "at least one layer"),
    "NaN weights": (lambda g: ms.chain_graph([np.full((3, 4), np.nan)]), "NaN or infinite"),
    "no batches": (lambda g: ms.activation_graph(g.model, g.wiring, []), "no batches"),
    "clusters of a wiring": (lambda g: ms.Spectral(2)(g.wiring), "a UnitGraph is wanted, got Wiring"),
    "communities of a model": (lambda g: ms.Leiden()(g.model), "a UnitGraph is wanted, got Sequential"),
    "the n-cut of a word": (lambda g: ms.n_cut("graph", np.zeros(3, int)), "a UnitGraph is wanted, got str"),
}
PARTITIONS = {
    "more clusters than units": (lambda g: ms.Spectral(100)(g.graph), "only 28 of 28 units"),
    "no clusters": (lambda g: ms.Spectral(0), "whole number of at least 1, got 0"),
    "half a cluster": (lambda g: ms.Spectral(2.5), "whole number of at least 1, got 2.5"),
    "labels of three units": (lambda g: ms.n_cut(g.graph, np.zeros(3, int)), "the partition has 3 units, the graph 28"),
    "labels that are fractions": (lambda g: ms.Partition(np.ones(3)), "one whole number per unit"),
    "labels below -1": (lambda g: ms.Partition(np.array([-2, 1])), ">= -1"),
    "everything left out": (lambda g: ms.n_cut(g.graph, np.full(28, -1)), "every unit is left out"),
}
STATISTICS = {
    "a seed that is a word": (lambda g: ms.Spectral(2)(g.graph, rng="a"), "non-negative int or a numpy"),
    "an unknown null": (lambda g: ms.clusterability(g.graph, ms.Spectral(2), nulls="x"), "there are keep_degrees"),
    "no samples": (lambda g: ms.clusterability(g.graph, ms.Spectral(2), n_samples=0), "at least one"),
    "half samples": (lambda g: ms.clusterability(g.graph, ms.Spectral(2), n_samples=1.5), "1.5"),
    "an unknown side": (
        lambda g: ms.compare(g.graph, lambda s, r: 1.0, lambda s, r: s, n_samples=5, alternative="both"),
        "less, greater, two-sided",
    ),
    "a statistic that is NaN": (
        lambda g: ms.compare(g.graph, lambda s, r: np.nan, lambda s, r: s, n_samples=5, alternative="less"),
        "finite number",
    ),
}
TASKS = {
    "data that can be read once": (lambda g: g.task(train=iter(g.batches)), "read only once"),
    "no data": (lambda g: ms.evaluate(g.model, g.task(test=[])), "has no test data"),
    "a batch of inputs alone": (lambda g: ms.evaluate(g.model, g.task(test=[g.inputs])), "(inputs, targets) or a dict"),
    "a loss per example": (lambda g: ms.evaluate(g.model, g.task(loss=lambda o, t: o)), "must be a scalar tensor"),
    "one value for all": (lambda g: ms.evaluate(g.model, g.task(correct=lambda o, t: 3)), "one value per example"),
    "a task by name": (lambda g: ms.evaluate(g.model, "task"), "a modscope.Task is wanted, got str"),
    "two tasks of one name": (
        lambda g: ms.importance(g.model, g.wiring, g.partition, [g.task(), g.task()]),
        "given twice: task",
    ),
    "a task without data to analyze": (lambda g: ms.analyze(g.model, g.inputs, g.task(test=[])), "has no test data"),
}
MASKS = {
    "no steps": (lambda g: ms.MaskLearner(n_steps=0), "at least 1, got 0"),
    "an unknown estimator": (lambda g: ms.MaskLearner(estimator="x"), "must be one of"),
    "a pattern that fits nothing": (
        lambda g: ms.MaskLearner(parameters="x*")(g.model, g.task()),
        "fits no parameter",
    ),
    "a mask of another model": (lambda g: entered(ms.applied(g.model, g.other)), "has no parameter elsewhere"),
    "a mask of numbers": (lambda g: ms.Mask({"0.weight": torch.ones(16, 8)}), "must be a boolean tensor"),
    "masks of two models": (lambda g: ms.iou(g.mask, g.other), "different parameters"),
    "overlap of one task": (lambda g: ms.overlap(ms.MaskSet({"a": g.mask})), "at least two tasks"),
    "no masks to align": (lambda g: ms.alignment({}, g.wiring, g.partition), "at least one mask"),
}
LESIONS = {
    "a unit that is not there": (lambda g: entered(ms.silenced(g.model, g.wiring, [999])), "units are 0 to 27"),
    "an unknown value": (lambda g: entered(ms.silenced(g.model, g.wiring, [1], value="x")), "'zero', 'mean'"),
    "a mean of nothing": (lambda g: entered(ms.silenced(g.model, g.wiring, [1], value="mean")), "reference"),
    "clusters of another network": (
        lambda g: ms.importance(g.model, g.wiring, ms.Partition(np.array([0, 1])), g.task()),
        "the partition has 2 units, the wiring 28",
    ),
}
RECORDS = {
    "a mask file that is not there": (lambda g: ms.Mask.load("no/such/file"), "no mask file at"),
    "a run that is not there": (lambda g: ms.Run.load("no/such/folder"), "cannot read"),
}
REPORTS = {
    "nothing to report": (lambda g: ms.write_report([], "page.html"), "nothing to report"),
    "a report about a number": (lambda g: ms.write_report(3, "page.html"), "got int"),
}
CASES = [
    pytest.param(error, wrong, says, id=name)
    for error, cases in (
        (ms.WiringError, WIRING),
        (ms.GraphError, GRAPHS),
        (ms.PartitionError, PARTITIONS),
        (ms.StatisticsError, STATISTICS),
        (ms.TaskError, TASKS),
        (ms.MaskError, MASKS),
        (ms.LesionError, LESIONS),
        (ms.RecordError, RECORDS),
        (ms.StudyError, REPORTS),
    )
    for name, (wrong, says) in cases.items()
]


@pytest.mark.parametrize(("error", "wrong", "says"), CASES)
def test_what_is_wrong_is_said(given, error, wrong, says):
    with pytest.raises(error) as raised:
        wrong(given)
    message = str(raised.value)
    assert says in message
    assert "\n" not in message.strip()


def test_every_error_is_a_modscope_error_and_one_that_python_users_know():
    errors = [getattr(ms, name) for name in ms.__all__ if name.endswith("Error") and name != "ModscopeError"]
    assert all(issubclass(error, ms.ModscopeError) for error in errors)
    assert all(issubclass(error, ValueError | TypeError | RuntimeError) for error in errors)
