"""One call analyses a network: facts about the whole of it."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

from modscope.alignment import alignment
from modscope.analysis.analyze import analyze
from modscope.analysis.run import Run
from modscope.analysis.stability_content import chance_iou
from modscope.analysis.stages import numbers_around
from modscope.errors import (
    JobError,
    MaskError,
    PartitionError,
    RecordError,
    StatisticsError,
    TaskError,
    WiringError,
)
from modscope.masks.learner import MaskLearner
from modscope.masks.mask import Mask
from modscope.masks.metrics import iou
from modscope.models.mlp import mlp
from modscope.partition.leiden import Leiden
from modscope.partition.spectral import Spectral
from modscope.records import Record
from modscope.report.content import Analysis
from modscope.tasks.task import Task

QUESTIONS = ["function", "structure", "importance", "bridge"]


def pair_task(name: str, columns: list[int], inputs: torch.Tensor) -> Task:
    """Which of two inputs is larger?"""
    batches = [(inputs, inputs[:, columns].argmax(dim=1))]
    return Task(
        name,
        batches,
        batches,
        loss=lambda outputs, targets: nn.functional.cross_entropy(outputs[:, columns], targets),
        correct=lambda outputs, targets: outputs[:, columns].argmax(dim=1) == targets,
        function=name,
    )


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return mlp((4, 16, 16, 4), rng=0)


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    inputs = torch.from_numpy(np.random.default_rng(0).standard_normal((256, 4))).float()
    return [pair_task("first", [0, 1], inputs), pair_task("second", [2, 3], inputs)]


def quick(network: nn.Module, tasks: object, **changes: object) -> Run:
    settings = {
        "partitioner": Spectral(3),
        "learner": MaskLearner(n_steps=20, initial_logit=2.0),
        "n_samples": 19,
        "rng": 0,
        **changes,
    }
    return analyze(network, torch.zeros(1, 4), tasks, **settings)


@pytest.fixture(scope="module")
def run(network: nn.Module, tasks: list[Task]) -> Run:
    return quick(network, tasks)


def test_four_questions_are_answered_in_order(run: Run):
    assert [verdict.key for verdict in run.verdicts] == QUESTIONS
    assert all(verdict.sentence and verdict.reason for verdict in run.verdicts)


def test_the_content_fits_the_schema_of_the_page(run: Run):
    content = Analysis.model_validate(run.content)
    assert sum(module.n for module in content.modules) + content.units.module.count(-1) == content.model.n_units
    assert content.model.n_units == 4 + 16 + 16 + 4


def test_same_seed_gives_the_same_bytes_with_and_without_workers(network: nn.Module, tasks: list[Task], run: Run):
    from joblib.externals.loky import get_reusable_executor

    again = quick(network, tasks, executor=get_reusable_executor(max_workers=2))
    assert again.record().to_json() == run.record().to_json()


def test_threads_which_share_the_model_change_neither_it_nor_the_numbers(
    network: nn.Module, tasks: list[Task], run: Run
):
    before = {name: (parameter, parameter.clone()) for name, parameter in network.named_parameters()}
    with ThreadPoolExecutor(3) as threads:
        again = quick(network, tasks, executor=threads)
    assert again.record().to_json() == run.record().to_json()
    after = dict(network.named_parameters())
    assert set(after) == set(before)
    assert all(after[name] is same and torch.equal(same, copied) for name, (same, copied) in before.items())


def test_another_seed_gives_other_numbers(network: nn.Module, tasks: list[Task], run: Run):
    assert quick(network, tasks, rng=1).record().to_json() != run.record().to_json()


def test_a_saved_run_loads_with_verdicts_masks_and_partition(run: Run, tmp_path):
    loaded = Run.load(run.save(tmp_path / "run"))
    assert loaded.record().to_json() == run.record().to_json()
    assert [str(verdict) for verdict in loaded.verdicts] == [str(verdict) for verdict in run.verdicts]
    assert np.array_equal(loaded.partition.labels, run.partition.labels)
    assert loaded.mask_set == run.mask_set


def test_a_damaged_run_is_refused(run: Run, tmp_path):
    path = run.save(tmp_path / "run") / "record.json"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(RecordError, match=r"record\.json"):
        Run.load(path.parent)


def test_a_record_of_another_kind_is_no_run(tmp_path):
    Record("collection", "x", {}).save(tmp_path / "record.json")
    with pytest.raises(RecordError, match="kind 'collection'"):
        Run.load(tmp_path)


def test_without_tasks_only_structure_is_tested(network: nn.Module):
    run = quick(network, ())
    assert [verdict.state == "na" for verdict in run.verdicts] == [True, False, True, True]
    assert run.mask_set is None
    Analysis.model_validate(run.content)


def test_structure_is_tested_at_five_numbers_of_clusters_around_the_chosen_one(run: Run):
    assert numbers_around(12, 1818) == (6, 9, 12, 18, 24)
    assert numbers_around(2, 100) == (2, 3, 4)
    assert numbers_around(12, 40) == (6, 9, 12, 18)  # two units a cluster at least
    sweep, structure = run.results.sweep, run.results.clusterability
    assert sweep.n_clusters == (2, 3, 4, 6)
    assert sweep.n_cuts[3] == pytest.approx(structure.n_cut)
    for null, test in structure.items():  # both have 19 samples here: the same ones
        assert sweep[null][3].null_samples == pytest.approx(test.null_samples)
    points = Analysis.model_validate(run.content).tests.sweep.points
    assert [point.k for point in points] == [2, 3, 4, 6]
    assert "at 2, 3, 4 and 6 modules" in run.content["texts"]["methods"]


def test_the_page_is_told_how_far_clusterings_and_masks_repeat(run: Run):
    repeats = {item.source: item for item in Analysis.model_validate(run.content).stability.repeats}
    assert list(repeats) == [
        *(f"{k} modules, clustered again" for k in (2, 3, 4, 6)),
        *(f"mask of {task}, learned again" for task in ("first", "second")),
    ]
    assert np.mean(repeats["3 modules, clustered again"].values) == pytest.approx(run.results.clusterability.stability)
    assert len(repeats["3 modules, clustered again"].values) == 10  # pairs of five clusterings
    masks = run.mask_set.seeds("first")
    assert repeats["mask of first, learned again"].values == [pytest.approx(iou(*masks))]
    assert repeats["mask of first, learned again"].chance == pytest.approx(chance_iou(*masks))


def test_chance_for_masks_is_what_random_masks_of_their_sizes_share():
    rng = np.random.default_rng(0)

    def random_mask(*n_kept: int) -> Mask:
        parts = zip("ab", n_kept, (4000, 1000), strict=True)
        return Mask({name: torch.from_numpy(rng.permutation(n) < kept) for name, kept, n in parts})

    pairs = [(random_mask(400, 900), random_mask(2000, 300)) for _ in range(40)]
    assert np.mean([iou(*pair) for pair in pairs]) == pytest.approx(chance_iou(*pairs[0]), rel=0.01)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"sweep": ()}, "were not tried in this run"),
        ({"partitioner": Leiden()}, "Leiden finds the number of modules by itself"),
    ],
)
def test_a_run_without_a_sweep_says_why(network: nn.Module, settings: dict, why: str):
    run = quick(network, (), **settings)
    assert run.results.sweep is None
    assert why in Analysis.model_validate(run.content).tests.sweep.why
    assert "The test was repeated" not in run.content["texts"]["methods"]


def test_one_task_gives_importance_but_no_verdict_on_function(network: nn.Module, tasks: list[Task]):
    verdicts = {verdict.key: verdict for verdict in quick(network, tasks[0]).verdicts}
    assert verdicts["function"].state == "na"
    assert "first was the only task" in verdicts["function"].reason
    assert verdicts["importance"].state != "na"


def test_one_cluster_cuts_nothing_and_is_no_finding(network: nn.Module):
    run = quick(network, (), partitioner=Spectral(1))
    assert run.results.clusterability.n_cut == 0
    assert run.verdicts[1].state == "no"
    assert "n-cut 0 beside 0 of networks" in run.verdicts[1].reason.lower()


def test_the_network_is_left_as_it_was(network: nn.Module, tasks: list[Task]):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    quick(network, tasks)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())


def test_a_run_prints_plots_and_tabulates_itself(run: Run):
    assert all(question in repr(run) for question in QUESTIONS)
    assert run.to_frame()["key"].to_list() == QUESTIONS
    assert "<table>" in run._repr_html_()
    assert run.plot().get_xlabel()


@pytest.mark.parametrize(
    ("model", "inputs", "tasks", "error", "says"),
    [
        ("no model", torch.zeros(1, 4), (), WiringError, "torch.nn.Module"),
        (nn.Linear, torch.zeros(1, 4), (), WiringError, "call the class first"),
        (nn.Linear(4, 2), torch.zeros(1, 5), (), WiringError, "5"),
        (nn.Linear(4, 2), torch.zeros(1, 4), ("task",), TaskError, "Task"),
    ],
)
def test_bad_input_gets_a_clear_error(model, inputs, tasks, error, says):
    with pytest.raises(error, match=says):
        analyze(model, inputs, tasks)


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"partitioner": "spectral"}, PartitionError, r"like Spectral\(\) is wanted, got str"),
        ({"partitioner": Spectral}, PartitionError, "got the class Spectral"),
        ({"learner": "x"}, MaskError, r"like MaskLearner\(\) is wanted, got str"),
        ({"sweep": 3}, PartitionError, r"as \(6, 12\), got 3"),
        ({"sweep": (2, 900)}, PartitionError, "900 clusters were asked for"),
        ({"sweep": (1.5,)}, PartitionError, "whole numbers"),
        ({"n_seeds": 0}, MaskError, "got 0"),
        ({"n_seeds": 1.5}, MaskError, "got 1.5"),
        ({"n_samples": 0}, StatisticsError, "got 0"),
        ({"executor": 2}, JobError, "Executor is wanted"),
        ({"name": 3}, RecordError, "must be text, got int"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_a_setting_that_makes_no_sense_is_refused(network: nn.Module, tasks: list[Task], settings, error, says):
    with pytest.raises(error, match=says):
        quick(network, tasks, **settings)


def test_a_network_whose_loss_is_nan_is_refused_and_the_parameter_named(network: nn.Module, tasks: list[Task]):
    broken = copy.deepcopy(network)
    name, bias = next((name, tensor) for name, tensor in broken.named_parameters() if tensor.ndim == 1)
    bias.data[0] = float("nan")
    with pytest.raises(TaskError, match=f"'first' is NaN; parameter {name} holds NaN"):
        quick(broken, tasks)


def test_a_task_without_data_is_refused(network: nn.Module, tasks: list[Task]):
    empty = Task("empty", [], [], loss=tasks[0].loss, correct=tasks[0].correct)
    with pytest.raises(TaskError, match="'empty' has no test data"):
        quick(network, empty)


def test_more_clusters_than_units_are_refused(network: nn.Module, tasks: list[Task]):
    with pytest.raises(PartitionError, match="41"):
        quick(network, tasks, partitioner=Spectral(41))


def test_every_result_of_a_run_becomes_a_record_that_survives_a_file(run: Run, tmp_path):
    results = run.results
    assert results is not None
    found = [
        results.clusterability,
        results.sweep,
        results.specialization,
        results.specialization.overlap,
        results.importance,
    ]
    bridge = alignment(run.mask_set, results.wiring, run.partition, n_samples=19)
    found += [bridge, bridge.raw, run.partition, run.mask_set, run.mask_set["first"], run]
    for number, result in enumerate(found):
        record = result.record()
        assert Record.load(record.save(tmp_path / f"{number}.json")).content == record.content
        assert result.to_frame().height > 0
