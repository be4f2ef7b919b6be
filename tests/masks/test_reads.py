from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modscope.errors import MaskError
from modscope.masks.chunked_linear import Scratch, chunked_linear
from modscope.masks.reads import GaussianOutputs, Moments, SampledReads, WeightReads, variance_precision
from modscope.masks.sampling import rao_blackwell


def sampled(inputs: torch.Tensor, weight: torch.Tensor, logits: torch.Tensor, seed: int = 0) -> torch.Tensor:
    with SampledReads({id(weight): Moments(weight, logits)}, GaussianOutputs(torch.Generator().manual_seed(seed))):
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
        SampledReads({id(weight): Moments(weight, torch.zeros(2, 2))}, GaussianOutputs(torch.Generator())),
    ):
        _ = torch.ones(3, 2) @ weight


def copies_and_gradients(n_samples: int, count: int) -> dict[str, list[torch.Tensor]]:
    """What a masked layer gives: in one run, and as one product for each masked copy, from the same random numbers."""
    kernels = pytest.importorskip("modscope.masks.kernels", reason="numba is not installed")
    draws = torch.Generator().manual_seed(0)
    weight, start = torch.randn(30, 41, generator=draws), 3 * torch.randn(30, 41, generator=draws)
    pull = torch.randn(count, 30, generator=draws)
    found = {}
    for way in ("one run", "copies"):
        generator = torch.Generator().manual_seed(1)
        inputs = torch.linspace(-1, 1, count * 41).reshape(count, 41).requires_grad_()
        logits = start.clone().requires_grad_()
        if way == "one run":
            outputs = chunked_linear(inputs, weight, logits, n_samples, generator, Scratch(), kernels)
        else:
            copies = rao_blackwell(logits, weight, n_samples, generator, 0.0)
            bounds = [count * sample // n_samples for sample in range(n_samples + 1)]
            chunks = [inputs[low:high] for low, high in itertools.pairwise(bounds)]
            outputs = torch.cat([chunk @ copy.T for chunk, copy in zip(chunks, copies, strict=True)])
        found[way] = [outputs, *torch.autograd.grad((outputs * pull).sum(), (inputs, logits))]
    return found


@pytest.mark.parametrize("scratch", [2**20, 700])
@pytest.mark.parametrize(("n_samples", "count"), [(1, 3), (4, 4), (4, 10), (8, 17), (3, 9)])
def test_a_layer_that_makes_its_copies_where_it_needs_them_equals_one_that_is_given_them(
    n_samples: int, count: int, scratch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modscope.masks.chunked_linear._SCRATCH", scratch)  # the whole weight at once, or a few rows
    found = copies_and_gradients(n_samples, count)
    for one_run, copies in zip(found["one run"], found["copies"], strict=True):
        assert torch.allclose(one_run, copies, rtol=1e-4, atol=1e-4)


def outputs_and_gradients(dtype: torch.dtype) -> list[torch.Tensor]:
    """Of a layer whose outputs are sampled, in one precision or another, with the same noise."""
    draws = torch.Generator().manual_seed(0)
    inputs, weight, start = (torch.randn(*shape, generator=draws) for shape in [(7, 50), (40, 50), (40, 50)])
    pull = torch.randn(7, 40, generator=draws)
    x, logits = inputs.to(dtype).requires_grad_(), (4 * start).to(dtype).requires_grad_()
    outputs = sampled(x, weight.to(dtype), logits)
    return [outputs, *torch.autograd.grad((outputs * pull.to(dtype)).sum(), (x, logits))]


@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize(("of_variance", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-3)])
def test_single_precision_agrees_with_double_precision_with_and_without_numba(
    is_compiled: bool, of_variance: torch.dtype, rounding: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_compiled:
        monkeypatch.setattr("modscope.masks.compiled._kernels", lambda: None)
    double = outputs_and_gradients(torch.float64)
    monkeypatch.setattr("modscope.masks.reads.variance_precision", lambda _: of_variance)
    for found, exact in zip(outputs_and_gradients(torch.float32), double, strict=True):
        assert found.dtype == torch.float32
        assert (found - exact).norm() < rounding * exact.norm()


def test_variances_are_rounded_only_in_single_precision() -> None:
    assert variance_precision(torch.zeros(1)) in (torch.float32, torch.bfloat16)
    assert variance_precision(torch.zeros(1, dtype=torch.float64)) == torch.float64
    assert variance_precision(torch.zeros(1, dtype=torch.float16)) == torch.float16
