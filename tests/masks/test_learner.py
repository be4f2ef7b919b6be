from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import families
from fingerprint import differences
from masks import planted_tasks
from masks.untouched import state_of
from modscope.data.examples import Examples
from modscope.data.idx import mnist
from modscope.errors import MaskError, TaskError
from modscope.masks.applied import applied
from modscope.masks.learner import MaskLearner, MaskLearningError, learn_masks
from modscope.masks.metrics import iou
from modscope.models.published import load
from modscope.partition.partition import Partition
from modscope.tasks.task import Task, evaluate
from modscope.wiring.trace import read_wiring

FAST = {"n_steps": 40, "learning_rate": 0.2}


def toy_task(inputs: Any, n_classes: int = 4, name: str = "toy", batch_dim: int = 0, **changes: Any) -> Task:
    targets = torch.arange(inputs.shape[batch_dim]) % n_classes
    batches = [(inputs, targets)]
    functions = {
        "loss": lambda outputs, targets: F.cross_entropy(outputs, targets),
        "correct": lambda outputs, targets: outputs.argmax(1) == targets,
    }
    return Task(name, batches, batches, batch_dim=batch_dim, **{**functions, **changes})


def blobs(n: int = 32, width: int = 6) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "estimator", ["local_reparameterization", "rao_blackwell", "straight_through", "hard_concrete"]
)
def test_the_mask_of_a_planted_task_is_the_planted_one(estimator: str) -> None:
    model = planted_tasks.network([range(6), range(6, 12)])
    tasks = planted_tasks.tasks(model, 2)
    for output, task in enumerate(tasks):
        mask = MaskLearner(penalty=0.02, estimator=estimator)(model, task)
        assert iou(mask, planted_tasks.needed(model, output)) >= 0.9
        with applied(model, mask):
            assert evaluate(model, task).accuracy > 0.95
        with applied(model, ~mask):
            assert evaluate(model, task).accuracy < 0.6


class ReadsLaterBatchesOtherwise(nn.Module):
    """Odd batches are read by a matrix product, or as sequences, instead of by a linear layer on vectors."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.layer, self.way, self.n_otherwise = nn.Linear(6, 4), way, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) != 20:
            return self.layer(x)
        self.n_otherwise += 1
        return x @ self.layer.weight.T if self.way == "product" else self.layer(x.unsqueeze(1)).squeeze(1)


@pytest.mark.parametrize("way", ["product", "sequence"])
@pytest.mark.parametrize("estimator", ["rao_blackwell", "local_reparameterization"])
def test_a_weight_that_a_later_batch_reads_otherwise_is_masked_there_too(estimator: str, way: str) -> None:
    torch.manual_seed(0)
    model = ReadsLaterBatchesOtherwise(way)
    with torch.no_grad():
        model.layer.weight.zero_()[:, :4] = 3 * torch.eye(4)
        model.layer.bias.zero_()
    inputs = blobs(52)
    batches = [(part, part[:, :4].argmax(1)) for part in (inputs[:32], inputs[32:])]
    task = dataclasses.replace(toy_task(inputs), train=batches, test=batches)
    mask = MaskLearner(n_steps=60, estimator=estimator)(model, task)
    assert model.n_otherwise >= 30
    assert torch.equal(mask["layer.weight"], model.layer.weight != 0)


def test_continuous_sparsification_finds_the_planted_mask_too() -> None:
    model = planted_tasks.network([range(6), range(6, 12)])
    task = planted_tasks.tasks(model, 2)[1]
    learner = MaskLearner(penalty=0.02, estimator="continuous_sparsification", n_samples=1, initial_logit=1.0)
    assert iou(learner(model, task), planted_tasks.needed(model, 1)) >= 0.9


def test_unit_masks_of_a_planted_task_keep_its_units() -> None:
    blocks = [range(6), range(6, 12)]
    model = planted_tasks.network(blocks)
    tasks = planted_tasks.tasks(model, 2)
    wiring = read_wiring(model, torch.zeros(2, planted_tasks.N_INPUTS))
    mask = MaskLearner(granularity="unit", penalty=0.1, learning_rate=0.1)(model, tasks[1], wiring=wiring)
    rows = mask["2.weight"][1]
    assert rows[6:12].all()
    assert rows.sum() == 6


def test_cluster_masks_of_a_planted_task_keep_its_cluster() -> None:
    model = planted_tasks.network([range(6), range(6, 12)])
    wiring = read_wiring(model, torch.zeros(2, planted_tasks.N_INPUTS))
    hidden = next(group for group in wiring.groups if group.size == planted_tasks.N_HIDDEN)
    labels = torch.full((wiring.n_units,), -1).numpy()
    for cluster in range(4):
        labels[hidden.unit_ids[cluster * 6 : cluster * 6 + 6]] = cluster
    mask = MaskLearner(granularity=Partition(labels), penalty=0.1, learning_rate=0.1)(
        model, planted_tasks.tasks(model, 2)[1], wiring=wiring
    )
    assert torch.equal(mask["2.weight"].all(dim=0), torch.arange(planted_tasks.N_HIDDEN) // 6 == 1)


def test_groups_given_by_hand_are_kept_or_removed_together() -> None:
    model = planted_tasks.network([range(6), range(6, 12)])
    groups = {"2.weight": torch.arange(planted_tasks.N_HIDDEN)[None, :] // 6}
    mask = MaskLearner(granularity=groups, penalty=0.3)(model, planted_tasks.tasks(model, 2)[0])
    assert mask.names == ("2.weight",)
    assert torch.equal(mask["2.weight"][0], torch.arange(planted_tasks.N_HIDDEN) < 6)


def test_a_target_density_is_met_exactly() -> None:
    model = planted_tasks.network([range(6), range(6, 12)])
    task = planted_tasks.tasks(model, 2)[0]
    mask = MaskLearner(density=30 / 336, penalty=0.05)(model, task)
    assert mask.n_kept == 30
    assert iou(mask, planted_tasks.needed(model, 0)) >= 0.9


def test_the_penalty_on_size_and_early_stopping_find_the_planted_mask() -> None:
    model = planted_tasks.network([range(6), range(6, 12)])
    task = planted_tasks.tasks(model, 2)[0]
    mask = MaskLearner(penalty_on="size", penalty=0.1)(model, task)
    assert iou(mask, planted_tasks.needed(model, 0)) >= 0.9
    stopped = MaskLearner(penalty=0.02, stop_below=0.05, schedule="constant")(model, task)
    assert stopped.details["n_steps"] < 300
    assert iou(stopped, planted_tasks.needed(model, 0)) >= 0.9


def test_on_a_network_that_does_not_do_the_task_the_mask_comes_out_empty() -> None:
    torch.manual_seed(0)
    model = families.mlp()
    inputs, noise = blobs(256), torch.randint(0, 4, (256,), generator=torch.Generator().manual_seed(1))
    batches = [(inputs, noise)]
    task = toy_task(inputs)
    random_labels = Task("noise", batches, batches, loss=task.loss, correct=task.correct)
    assert MaskLearner(penalty=1.0)(model, random_labels).n_kept == 0


MODELS: dict[str, tuple[Any, Any]] = {
    "mlp": (families.mlp, lambda: toy_task(blobs())),
    "norms and dropout": (families.norm_mlp, lambda: toy_task(blobs())),
    "convolutions": (families.lenet, lambda: toy_task(torch.randn(8, 1, 28, 28), 3)),
    "lstm, time first": (
        lambda: nn.LSTM(5, 7, num_layers=2),
        lambda: toy_task(
            torch.randn(3, 8, 5),
            7,
            batch_dim=1,
            loss=lambda outputs, targets: F.cross_entropy(outputs[0][-1], targets),
            correct=lambda outputs, targets: outputs[1][0][-1].argmax(1) == targets,
        ),
    ),
    "gru": (
        lambda: nn.GRU(5, 7, batch_first=True, bidirectional=True),
        lambda: toy_task(
            torch.randn(8, 3, 5),
            7,
            loss=lambda outputs, targets: F.cross_entropy(outputs[0][:, -1], targets),
            correct=lambda outputs, targets: outputs[0][:, -1].argmax(1) == targets,
        ),
    ),
}


def language_task() -> Task:
    ids = torch.randint(0, 11, (8, 5), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "labels": ids, "not an argument": ids}
    return Task(
        "language",
        [batch],
        [batch],
        loss=lambda outputs, batch: F.cross_entropy(
            outputs.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()
        ),
        correct=lambda outputs, batch: (outputs.logits[:, :-1].argmax(-1) == batch["labels"][:, 1:]).float().mean(1),
    )


MODELS["gpt2 with dict batches"] = (families.gpt2, language_task)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("estimator", ["local_reparameterization", "straight_through"])
def test_any_model_gets_masks_and_is_left_bit_for_bit_as_it_was(name: str, estimator: str) -> None:
    factory, make_task = MODELS[name]
    torch.manual_seed(0)
    model = factory().train()
    next(model.parameters()).requires_grad_(False)
    task = make_task()
    before = state_of(model)
    mask = MaskLearner(estimator=estimator, n_steps=6, learning_rate=0.6, initial_logit=2.0, parameters="all")(
        model, task
    )
    assert differences(before, state_of(model)) == []
    assert set(mask.names) == {name for name, _ in model.named_parameters()}
    assert 0 < mask.density < 1
    with applied(model, mask):
        assert 0 <= evaluate(model, task).accuracy <= 1
    assert differences(before, state_of(model)) == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_the_model_is_left_as_it_was_when_learning_is_broken_off(error: type[BaseException], granularity: str) -> None:
    model, calls = families.norm_mlp().train(), []

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 8:
            raise error
        return F.cross_entropy(outputs, targets)

    before = state_of(model)
    with pytest.raises(TaskError if error is RuntimeError else error):
        MaskLearner(**FAST, granularity=granularity)(model, toy_task(blobs(), loss=loss))
    assert differences(before, state_of(model)) == []


def test_masks_are_learned_where_gradients_are_switched_off_and_all_parameters_are_frozen() -> None:
    torch.manual_seed(0)
    model, task = families.mlp().requires_grad_(False), toy_task(blobs())
    usual = MaskLearner(**FAST)(model, task)
    before = state_of(model)
    with torch.no_grad():
        assert MaskLearner(**FAST)(model, task) == usual
        assert not torch.is_grad_enabled()
    assert differences(before, state_of(model)) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_masks_are_learned_in_the_precision_that_the_model_runs_in(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = families.mlp().to(dtype)
    mask = MaskLearner(**FAST, penalty=0.01)(model, toy_task(blobs().to(dtype)))
    assert 0 < mask.density < 1
    assert next(model.parameters()).dtype == dtype


def test_the_same_seed_gives_the_same_mask_on_any_executor_and_another_seed_another() -> None:
    torch.manual_seed(0)
    model, learner = families.mlp(), MaskLearner(**FAST, penalty=0.1)
    tasks = [toy_task(blobs(), name="one"), toy_task(blobs().flip(0), name="two")]
    here = learn_masks(model, tasks, learner, n_seeds=2, rng=3)
    with ThreadPoolExecutor(1) as executor:
        there = learn_masks(model, tasks, learner, n_seeds=2, rng=3, executor=executor)
    assert here == there
    assert learn_masks(model, tasks[1], learner, rng=3)["two"] == here["two"]
    first, second = (mask.logits for mask in here.seeds("one"))
    assert first is not None
    assert second is not None
    assert not torch.equal(first["0.weight"], second["0.weight"])


def test_the_official_quirks_change_the_run_by_one_step_and_the_clipping() -> None:
    torch.manual_seed(0)
    model, task = families.mlp(), toy_task(blobs())
    plain = MaskLearner.csordas2021(n_steps=30)(model, task)
    official = MaskLearner.csordas2021(n_steps=30, official=True)(model, task)
    assert (plain.details["n_steps"], official.details["n_steps"]) == (30, 31)
    assert official.names == plain.names == ("0.weight", "2.weight", "4.weight")


def test_the_paper_s_preset_has_the_paper_s_numbers() -> None:
    settings = MaskLearner.csordas2021().to_dict()
    paper = {"penalty": 1e-4, "n_steps": 20_000, "learning_rate": 1e-2, "initial_logit": 2.0, "n_samples": 4}
    assert {name: settings[name] for name in paper} == paper
    assert settings["estimator"] == "straight_through"


def test_a_loss_that_is_not_finite_stops_at_its_step_and_keeps_the_last_good_mask() -> None:
    calls: list[int] = []

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return F.cross_entropy(outputs, targets) * (float("nan") if len(calls) > 6 else 1.0)

    with pytest.raises(MaskLearningError, match="is nan at step 5") as caught:
        MaskLearner(**FAST, penalty=0.01)(families.mlp(), toy_task(blobs(), loss=loss))
    assert caught.value.mask.logits is not None
    assert all(logits.isfinite().all() for logits in caught.value.mask.logits.values())


def integer_parameter_model() -> nn.Module:
    model = families.mlp()
    model.register_parameter("codes", nn.Parameter(torch.ones(3, 3, dtype=torch.int64), requires_grad=False))
    return model


BAD: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "vector loss": ({}, {"loss": lambda o, t: F.cross_entropy(o, t, reduction="none")}, TaskError, "scalar"),
    "loss without gradient": (
        {},
        {"loss": lambda o, t: (o.argmax(1) != t).float().mean()},
        TaskError,
        "differentiated",
    ),
    "loss that fails": (
        {},
        {"loss": lambda o, t: F.cross_entropy(o, t[:3])},
        TaskError,
        "the loss of task 'toy' failed",
    ),
    "small batch": ({"n_samples": 40}, {}, MaskError, "fewer than the 40 mask samples"),
    "pattern": ({"parameters": ["nowhere.*"]}, {}, MaskError, "'nowhere.*' fits no parameter"),
    "no parameters": ({"parameters": []}, {}, MaskError, "parameters is empty"),
    "integer parameter": ({"parameters": "codes"}, {}, MaskError, "only floating-point ones"),
    "granularity": ({"granularity": "neuron"}, {}, MaskError, "granularity must be one of"),
    "groups of another shape": ({"granularity": {"0.weight": torch.zeros(5)}}, {}, MaskError, "does not broadcast"),
    "groups of another model": ({"granularity": {"9.weight": torch.zeros(1)}}, {}, MaskError, "groups are given for 9"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_learned_is_said_in_one_line(name: str) -> None:
    options, changes, kind, message = BAD[name]
    model = integer_parameter_model()
    before = state_of(model)
    with pytest.raises(kind) as caught:
        MaskLearner(**{**FAST, **options})(model, toy_task(blobs(), **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert differences(before, state_of(model)) == []


def test_a_grouping_that_the_wiring_does_not_have_is_named() -> None:
    model = families.mlp()
    wiring = read_wiring(model, blobs())
    with pytest.raises(MaskError, match="no masked parameter joins a group"):
        MaskLearner(granularity="head")(model, toy_task(blobs()), wiring=wiring)
    with pytest.raises(MaskError, match=r"labels for 3 units, the wiring has 26"):
        MaskLearner(granularity=Partition(np.zeros(3, dtype=np.int64)))(model, toy_task(blobs()), wiring=wiring)


@pytest.mark.parametrize(
    "options",
    [
        {"n_steps": 0},
        {"n_samples": 0},
        {"penalty": -1.0},
        {"learning_rate": float("nan")},
        {"estimator": "reinforce"},
        {"schedule": "step"},
        {"density": 2.0},
        {"official": True},
    ],
)
def test_impossible_settings_are_refused_when_they_are_made(options: dict[str, Any]) -> None:
    with pytest.raises(MaskError, match="got"):
        MaskLearner(**options)


def test_a_task_whose_data_can_be_read_once_is_refused() -> None:
    with pytest.raises(TaskError, match="only once"):
        Task("once", iter([1]), [1], loss=len, correct=len)  # type: ignore[arg-type]


@pytest.mark.data
@pytest.mark.parametrize("granularity", ["weight", "row", "unit"])
def test_without_any_setting_a_small_part_of_a_published_network_does_its_task(
    granularity: str, data_folder: Path
) -> None:
    network, images = load("lenet_mnist", folder=data_folder), mnist(data_folder).test
    examples = Examples(network.prepare(images.inputs[:3000]), images.targets[:3000].long())
    task = Task(
        "digits",
        examples[:2500].batches(128),
        examples[2500:].batches(500),
        loss=F.cross_entropy,
        correct=lambda outputs, targets: outputs.argmax(1) == targets,
    )
    mask = MaskLearner(granularity=granularity, n_steps=150)(network.model, task)
    assert mask.density < 0.7
    with applied(network.model, mask):
        assert evaluate(network.model, task).accuracy > 0.93
    with applied(network.model, ~mask):
        assert evaluate(network.model, task).accuracy < 0.3


def test_a_short_run_starts_where_its_steps_can_reach_and_a_long_one_at_98_percent() -> None:
    starts = {n_steps: MaskLearner(n_steps=n_steps).to_dict()["initial_logit"] for n_steps in (20, 60, 80, 300)}
    assert starts == pytest.approx({20: 1.0, 60: 3.0, 80: 4.0, 300: 4.0})
    assert MaskLearner(n_steps=20, initial_logit=4.0).to_dict()["initial_logit"] == 4
    assert MaskLearner(n_steps=20, schedule="constant").to_dict()["initial_logit"] == 2


def test_a_short_run_removes_what_the_task_does_not_need() -> None:
    model = planted_tasks.network([range(8), range(8, 16)])
    task = planted_tasks.tasks(model, 2)[0]
    mask = MaskLearner(n_steps=30)(model, task)
    assert mask.density < 0.9
    assert mask.n_kept > 0
