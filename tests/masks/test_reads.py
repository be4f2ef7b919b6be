from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modscope.errors import MaskError
from modscope.masks.reads import Moments, SampledOutputs, WeightReads


def sampled(inputs: torch.Tensor, weight: torch.Tensor, logits: torch.Tensor, seed: int = 0) -> torch.Tensor:
    with SampledOutputs({id(weight): Moments(weight, logits)}, torch.Generator().manual_seed(seed)):
        return F.linear(inputs, weight)


def test_sampled_outputs_have_the_mean_and_variance_of_masked_sums() -> None:
    weight, logits = (
        torch.tensor([[1.0, -2.0, 0.5], [3.0, 0.1, -1.0]]),
        torch.tensor([[0.5, -1.0, 2.0], [0.0, 3.0, 1.0]]),
    )
    inputs, probability = torch.tensor([0.7, -1.1, 2.0]), torch.sigmoid(logits)
    outcomes, weights = [], []
    for mask in itertools.product([0.0, 1.0], repeat=3):
        m = torch.tensor(mask)
        outcomes.append((weight * m) @ inputs)
        weights.append(torch.where(m > 0, probability, 1 - probability).prod(dim=1))
    chance, outcome = torch.stack(weights), torch.stack(outcomes)
    mean = (chance * outcome).sum(dim=0)
    variance = (chance * (outcome - mean) ** 2).sum(dim=0)
    found = sampled(inputs.expand(200_000, 3), weight, logits)
    assert torch.allclose(found.mean(dim=0), mean, atol=0.02)
    assert torch.allclose(found.var(dim=0), variance, rtol=0.02)


def test_gradients_of_sampled_outputs_agree_with_autograd_of_the_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, weight, logits = (
        torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in [(5, 4), (3, 4), (3, 4)]
    )
    pull = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    noise = torch.empty(5, 3).normal_(generator=torch.Generator().manual_seed(7)).double()

    def formula(x: torch.Tensor, tracked: torch.Tensor) -> torch.Tensor:
        p = torch.sigmoid(tracked)
        return x @ (weight * p).T + ((x**2) @ (weight**2 * p * (1 - p)).T).sqrt() * noise

    for function in (formula, lambda x, tracked: sampled(x, weight, tracked, seed=7)):
        x, tracked = inputs.clone().requires_grad_(), logits.clone().requires_grad_()
        gradients = torch.autograd.grad((function(x, tracked) * pull).sum(), (x, tracked))
        if function is formula:
            expected = gradients
    assert torch.allclose(gradients[0], expected[0], rtol=1e-6)
    assert torch.allclose(gradients[1].double(), expected[1], rtol=1e-5)


def test_an_example_without_inputs_gets_no_noise_and_no_gradient_that_is_not_finite() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    outputs = sampled(torch.zeros(4, 3), torch.ones(2, 3), logits)
    assert outputs.abs().sum() == 0
    (gradient,) = torch.autograd.grad(outputs.sum(), logits)
    assert gradient.isfinite().all()


def reads(model: nn.Module, inputs: torch.Tensor) -> frozenset[str]:
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    noting = WeightReads(weights, len(inputs))
    with torch.no_grad(), noting:
        torch.func.functional_call(model, weights, (inputs,))
    return noting.once_per_example


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.once, self.twice, self.looked_at = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.looked_at.weight.shape[0]
        return self.looked_at(self.twice(torch.relu(self.twice(self.once(x))))) / size


def test_only_linear_layers_on_vectors_that_run_once_are_sampled_by_their_outputs() -> None:
    assert reads(Twice(), torch.ones(3, 4)) == {"once.weight", "once.bias", "looked_at.weight", "looked_at.bias"}
    assert reads(nn.Linear(4, 2), torch.ones(3, 5, 4)) == frozenset()  # a sequence: read once per position
    assert reads(nn.Sequential(nn.Flatten(0, 1), nn.Linear(4, 2)), torch.ones(3, 5, 4)) == frozenset()
    assert reads(nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.Linear(9, 2)), torch.ones(5, 2, 4)) == {
        "2.weight",
        "2.bias",
    }


def test_a_weight_that_is_suddenly_read_otherwise_is_an_error_not_a_wrong_gradient() -> None:
    weight = torch.ones(2, 2)
    with (
        pytest.raises(MaskError, match="in another way than on the first batch"),
        SampledOutputs({id(weight): Moments(weight, torch.zeros(2, 2))}, torch.Generator()),
    ):
        _ = torch.ones(3, 2) @ weight
