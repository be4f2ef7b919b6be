from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from modscope.masks.layout import LogitPerGroup, layout_of
from modscope.masks.learner import MaskLearner
from modscope.masks.objective import Objective, prepared
from modscope.masks.parameters import chosen_parameters
from modscope.masks.sampling import ESTIMATORS
from modscope.models.transformer import AlgorithmicTransformer, TransformerShape
from modscope.tasks.task import Task
from modscope.wiring.trace import read_wiring

N_EXAMPLES, N_SAMPLES = 13, 4  # uneven chunks


class WithTranspose(nn.Module):
    """Reads one weight through its transpose, and one through a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.relu(x @ self.first.weight.T + self.first.bias)
        return torch.matmul(hidden, self.second.weight.t()) + self.second.bias


class LastStep(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.output = nn.LSTM(5, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.lstm(x)[0][-1])


class StepByStep(nn.Module):
    """Time comes first, and rows of all steps go through one flat product: examples are not the first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = F.relu(self.first(x.flatten(0, 1)))
        return self.second(flat).unflatten(0, x.shape[:2]).mean(dim=0)


class Shuffling(nn.Module):
    """Turns the batch around on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)).flip(0)).flip(0)


class Gpt2Like(nn.Module):
    """One product over examples and positions in one axis, a tied embedding, and positions that all examples share."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(
            n_embd=12, n_layer=2, n_head=2, n_positions=8, vocab_size=11, bos_token_id=0, eos_token_id=0
        )
        self.model = GPT2LMHeadModel(config)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.model(input_ids=tokens).logits[:, -1]


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def cnn(n_groups: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=n_groups), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    )  # fmt: skip


def transformer() -> nn.Module:
    shape = TransformerShape(7, 5, 3, n_blocks=1, width=8, n_heads=2, width_mlp=12, is_causal=True)
    return nn.Sequential(AlgorithmicTransformer(shape), nn.Flatten())


FAMILIES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], int, bool]] = {  # ... all samples in one run?
    "mlp": (mlp, lambda: torch.randn(N_EXAMPLES, 6), 0, True),
    "cnn": (cnn, lambda: torch.randn(N_EXAMPLES, 2, 6, 6), 0, True),
    "depthwise cnn": (lambda: cnn(4), lambda: torch.randn(N_EXAMPLES, 2, 6, 6), 0, True),
    "grouped cnn": (lambda: cnn(2), lambda: torch.randn(N_EXAMPLES, 2, 6, 6), 0, False),
    "transformer": (transformer, lambda: torch.randint(7, (N_EXAMPLES, 5)), 0, True),
    "gpt2": (Gpt2Like, lambda: torch.randint(11, (N_EXAMPLES, 6)), 0, True),
    "transposed": (WithTranspose, lambda: torch.randn(N_EXAMPLES, 6), 0, False),
    "lstm": (LastStep, lambda: torch.randn(4, N_EXAMPLES, 5), 1, False),
    "time first": (StepByStep, lambda: torch.randn(N_EXAMPLES, N_EXAMPLES, 5), 1, False),
    "shuffling": (Shuffling, lambda: torch.randn(N_EXAMPLES, 6), 0, False),
}


def objective_of(family: str, granularity: Any, *, n_examples: int | None = None) -> Objective:
    build, make_inputs, batch_dim, _ = FAMILIES[family]
    torch.manual_seed(0)
    model, inputs = build().eval(), make_inputs()
    task = Task(
        family,
        [(inputs, torch.randint(3, (N_EXAMPLES,)))],
        [(inputs, torch.randint(3, (N_EXAMPLES,)))],
        loss=lambda outputs, targets: F.cross_entropy(outputs, targets % outputs.shape[1]),
        correct=lambda outputs, targets: outputs.argmax(dim=1) == targets,
        batch_dim=batch_dim,
    )
    chosen = chosen_parameters(model, "weights")
    layout = layout_of(granularity, chosen, read_wiring(model, inputs))
    names = layout.spread(layout.initial(0.0, torch.device("cpu")))
    masked = {name: chosen[name] for name in names}
    return prepared(model, task, layout, masked, N_SAMPLES, torch.Generator().manual_seed(5))


def loss_with_copies(objective: Objective, logits: list[Tensor], batch: Any, estimator: str) -> Tensor:
    """The definition: a copy of the weights per sample, each run on its own part of the batch."""
    layout = objective.layout
    assert isinstance(layout, LogitPerGroup)
    inputs, targets = batch
    batch_dim = objective.task.batch_dim
    samples = layout.kept(logits, ESTIMATORS[estimator], N_SAMPLES, objective.generator, 0.3)
    count = inputs.shape[batch_dim]
    n_samples = min(N_SAMPLES, count)
    bounds = [count * sample // n_samples for sample in range(n_samples + 1)]
    outputs = []
    for kept, start, stop in zip(samples, bounds, bounds[1:], strict=False):
        copy = {name: layout.masked_weight(name, weight, kept) for name, weight in objective.weights.items()}
        chunk = inputs.narrow(batch_dim, start, stop - start)
        outputs.append(functional_call(objective.model, {**objective.others, **copy}, (chunk,)))
    return objective.task.loss(torch.cat(outputs), targets)


def loss_and_gradient(objective: Objective, estimator: str, *, copies: bool) -> tuple[float, Tensor]:
    """With masked copies of the weights, one run per sample: the definition; or with masked reads."""
    objective = replace(objective, generator=torch.Generator().manual_seed(7))
    logits = [tensor.add(-1.5).requires_grad_() for tensor in objective.layout.initial(2.0, torch.device("cpu"))]
    batch = next(objective.task.batches("train"))
    if copies:
        loss = loss_with_copies(objective, logits, batch, estimator)
    else:
        loss, count = objective.loss(logits, batch, ESTIMATORS[estimator], 0.3)
        assert count == N_EXAMPLES
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.item(), gradient


@pytest.mark.parametrize("granularity", ["unit", "row", "column"])
@pytest.mark.parametrize("family", FAMILIES)
def test_masked_reads_give_the_loss_and_gradient_of_masked_weights(family: str, granularity: str) -> None:
    objective = objective_of(family, granularity)
    wanted, wanted_gradient = loss_and_gradient(objective, "rao_blackwell", copies=True)
    given, gradient = loss_and_gradient(objective, "rao_blackwell", copies=False)
    assert given == pytest.approx(wanted, rel=1e-4)
    assert torch.allclose(gradient, wanted_gradient, atol=1e-5, rtol=1e-3)
    assert gradient.abs().max() > 1e-4


@pytest.mark.parametrize("estimator", ["straight_through", "hard_concrete", "continuous_sparsification"])
def test_every_estimator_masks_reads_as_it_masks_weights(estimator: str) -> None:
    objective = objective_of("mlp", "unit")
    wanted, wanted_gradient = loss_and_gradient(objective, estimator, copies=True)
    given, gradient = loss_and_gradient(objective, estimator, copies=False)
    assert given == pytest.approx(wanted, rel=1e-4)
    assert torch.allclose(gradient, wanted_gradient, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_samples_share_one_run_only_where_that_changes_nothing(family: str) -> None:
    objective = objective_of(family, "unit")
    assert objective.groups is not None
    assert objective.groups.one_run == FAMILIES[family][3]


def test_one_run_of_the_model_per_step_where_samples_share_it() -> None:
    objective = objective_of("mlp", "unit")
    calls = []
    objective.model.register_forward_hook(lambda *_: calls.append(1))
    loss_and_gradient(objective, "rao_blackwell", copies=False)
    assert len(calls) == 1


def test_groups_that_lie_across_axes_are_masked_in_copies() -> None:
    model = mlp()
    numbers = {"0.weight": torch.arange(48).reshape(8, 6) % 5, "2.weight": torch.arange(64).reshape(8, 8) % 5}
    inputs = torch.randn(N_EXAMPLES, 6)
    task = Task(
        "mixed",
        [(inputs, torch.zeros(N_EXAMPLES).long())],
        [(inputs, torch.zeros(N_EXAMPLES).long())],
        loss=F.cross_entropy,
        correct=lambda outputs, targets: outputs.argmax(dim=1) == targets,
    )
    chosen = chosen_parameters(model, "weights")
    layout = layout_of(numbers, chosen, None)
    assert isinstance(layout, LogitPerGroup)
    masked = {name: chosen[name] for name in numbers}
    objective = prepared(model, task, layout, masked, N_SAMPLES, torch.Generator().manual_seed(5))
    wanted, wanted_gradient = loss_and_gradient(objective, "rao_blackwell", copies=True)
    given, gradient = loss_and_gradient(objective, "rao_blackwell", copies=False)
    assert given == pytest.approx(wanted, rel=1e-5)
    assert torch.allclose(gradient, wanted_gradient, atol=1e-6)


def test_a_batch_smaller_than_the_samples_is_masked_too() -> None:
    objective = objective_of("mlp", "unit")
    inputs, targets = next(objective.task.batches("train"))
    logits = [tensor.requires_grad_() for tensor in objective.layout.initial(0.5, torch.device("cpu"))]
    batch = inputs[:3], targets[:3]
    wanted = loss_with_copies(
        replace(objective, generator=torch.Generator().manual_seed(1)), logits, batch, "rao_blackwell"
    )
    drawn = replace(objective, generator=torch.Generator().manual_seed(1))
    given, _ = drawn.loss(logits, batch, ESTIMATORS["rao_blackwell"], 0.3)
    assert given.item() == pytest.approx(wanted.item(), rel=1e-4)


def test_a_half_precision_model_is_masked_at_its_reads() -> None:
    torch.manual_seed(0)
    model = mlp().to(torch.bfloat16)
    inputs = torch.randn(32, 6).to(torch.bfloat16)
    batches = [(inputs, torch.randint(3, (32,)))]
    task = Task("half", batches, batches, loss=lambda o, t: F.cross_entropy(o.float(), t), correct=lambda o, t: o.argmax(1) == t)  # fmt: skip  # noqa: E501
    mask = MaskLearner(granularity="unit", n_steps=5)(model, task)
    assert mask.logits is not None
    assert all(tensor.isfinite().all() for name, tensor in mask.logits.items() if name != "0.weight")
