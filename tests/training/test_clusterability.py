"""The clusterability penalty against finite differences; initialisation and rescaling against their definitions."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from modscope.data.examples import Examples
from modscope.errors import GraphError
from modscope.models.lenet import lenet
from modscope.models.mlp import mlp
from modscope.tasks.task import Task
from modscope.training import clusterability
from modscope.training.clusterability import (
    ClusterabilityPenalty,
    eigenvalue_sum,
    make_clusterable,
    normalise_units,
)
from modscope.training.fit import fit


def _random_chain(*sizes: int, seed: int = 0) -> list[torch.Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.normal(size=(n_out, n_in))) for n_in, n_out in pairwise(sizes)]


def _slow_eigenvalues(weights: list[torch.Tensor]) -> np.ndarray:
    """All eigenvalues of I - D^-1/2 A D^-1/2 from the whole adjacency, units without edges left out."""
    sizes = [weights[0].shape[1], *(len(weight) for weight in weights)]
    start = np.cumsum([0, *sizes])
    adjacency = np.zeros((start[-1], start[-1]))
    for layer, weight in enumerate(weights):
        n_inputs = sizes[layer]
        edges = weight.detach().abs().double().reshape(len(weight), n_inputs, -1).sum(2).numpy()
        adjacency[start[layer + 1] : start[layer + 2], start[layer] : start[layer + 1]] = edges
    adjacency += adjacency.T
    connected = adjacency.sum(axis=1) > 0
    adjacency = adjacency[np.ix_(connected, connected)]
    root = np.sqrt(adjacency.sum(axis=1))
    return np.linalg.eigvalsh(np.eye(len(root)) - adjacency / root / root[:, None])


@pytest.mark.parametrize("sizes", [(6, 5, 4), (4, 9, 7, 3), (3, 5, 5, 5, 5, 4)])
def test_the_value_is_the_sum_of_the_smallest_eigenvalues_after_the_first(sizes):
    weights = _random_chain(*sizes)
    eigenvalues = _slow_eigenvalues(weights)
    assert eigenvalues[0] == pytest.approx(0, abs=1e-9)
    for n in (1, 3):
        assert float(eigenvalue_sum(weights, n)) == pytest.approx(eigenvalues[1 : n + 1].sum())


@pytest.mark.parametrize("sizes", [(6, 5, 4), (4, 9, 7, 3)])
def test_the_gradient_agrees_with_finite_differences(sizes):
    weights = [weight.requires_grad_() for weight in _random_chain(*sizes)]
    gradients = torch.autograd.grad(eigenvalue_sum(weights, 3), weights)
    step = 1e-6
    for weight, gradient in zip(weights, gradients, strict=True):
        for index in np.ndindex(*weight.shape):
            values = []
            for change in (step, -step):
                with torch.no_grad():
                    weight[index] += change
                values.append(_slow_eigenvalues(weights)[1:4].sum())
                with torch.no_grad():
                    weight[index] -= change
            assert float(gradient[index]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)


def test_kernels_and_flattened_pixels_count_by_the_sum_of_their_sizes():
    rng = np.random.default_rng(0)
    kernel, flat, last = (torch.from_numpy(rng.normal(size=shape)) for shape in ((4, 3, 2, 2), (5, 16), (4, 5)))
    weights = [weight.requires_grad_() for weight in (kernel, flat, last)]
    value = eigenvalue_sum(weights, 2)
    assert value.item() == pytest.approx(_slow_eigenvalues(weights)[1:3].sum())
    gradients = torch.autograd.grad(value, weights)
    step = 1e-6
    for weight, gradient, index in ((kernel, gradients[0], (1, 2, 0, 1)), (flat, gradients[1], (3, 9))):
        with torch.no_grad():
            weight[index] += step
        assert float(gradient[index]) == pytest.approx(
            float(eigenvalue_sum(weights, 2).detach() - value.detach()) / step, rel=1e-3
        )
        with torch.no_grad():
            weight[index] -= step


def test_units_without_edges_change_nothing():
    weights = _random_chain(5, 6, 4)
    with_idle = [torch.nn.functional.pad(weights[0], (0, 0, 0, 2)), torch.nn.functional.pad(weights[1], (0, 2))]
    assert float(eigenvalue_sum(with_idle, 3)) == pytest.approx(float(eigenvalue_sum(weights, 3)))
    with_idle = [weight.requires_grad_() for weight in with_idle]
    gradients = torch.autograd.grad(eigenvalue_sum(with_idle, 3), with_idle)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_two_unconnected_halves_have_a_second_eigenvalue_of_zero():
    halves = [torch.block_diag(weight, weight) for weight in _random_chain(3, 4, 3)]
    assert float(eigenvalue_sum(halves, 1)) == pytest.approx(0, abs=1e-7)


def test_the_iterative_way_gives_the_same_value_and_gradient(monkeypatch):
    weights = [weight.float().requires_grad_() for weight in _random_chain(60, 50, 40, 30)]
    exact = eigenvalue_sum(weights, 3)
    exact_gradients = torch.autograd.grad(exact, weights)
    monkeypatch.setattr(clusterability, "LARGEST_EXACT_SIDE", 10)
    iterative = eigenvalue_sum(weights, 3)
    assert iterative.item() == pytest.approx(exact.item(), rel=1e-4)
    for ours, theirs in zip(torch.autograd.grad(iterative, weights), exact_gradients, strict=True):
        assert float((ours - theirs).norm() / theirs.norm()) < 0.01


def test_the_official_gradient_is_half_of_ours_at_the_same_value():
    values, gradients = [], []
    for is_half in (False, True):
        model = mlp([6, 8, 8, 4], rng=0)
        penalty = ClusterabilityPenalty(official_half=is_half)(model)
        torch.autograd.backward(penalty)
        values.append(penalty.item())
        gradients.append(model.hidden2.weight.grad)
    assert values[0] == values[1]
    assert torch.allclose(gradients[1], gradients[0] / 2)


def test_the_penalty_is_the_mean_eigenvalue_times_its_strength():
    model = mlp([6, 8, 8, 4], rng=0)
    eigenvalues = _slow_eigenvalues([layer.weight for layer in (model.hidden1, model.hidden2, model.output)])
    penalty = ClusterabilityPenalty(strength=0.7, n_eigenvalues=2)
    assert penalty(model).item() == pytest.approx(0.7 * eigenvalues[1:3].mean(), rel=1e-5)


def test_training_with_the_penalty_lowers_the_eigenvalues():
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.normal(size=(200, 6)).astype(np.float32))
    batches = Examples(inputs, (inputs[:, :2].sum(dim=1) > 0).long()).batches(50)
    task = Task(
        "sign",
        batches,
        batches,
        loss=nn.functional.cross_entropy,
        correct=lambda logits, targets: logits.argmax(dim=1) == targets,
    )
    sums = []
    for penalty in (None, ClusterabilityPenalty(strength=1.0)):
        model = mlp([6, 16, 16, 2], rng=0)
        fit(model, task, n_steps=200, rng=0, learning_rate=1e-2, penalty=penalty, before_step=normalise_units)
        sums.append(eigenvalue_sum([layer.weight for layer in (model.hidden1, model.hidden2, model.output)], 1).item())
    assert sums[1] < 0.5 * sums[0]


def test_rescaled_units_compute_the_same_and_have_norm_root_two():
    model = mlp([6, 8, 7, 4], rng=0)
    inputs = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    before = model(inputs)
    normalise_units(model)
    assert torch.allclose(model(inputs), before, atol=1e-5)
    for layer in (model.hidden1, model.hidden2):
        norms = torch.cat([layer.weight, layer.bias[:, None]], dim=1).norm(dim=1)
        assert torch.allclose(norms, torch.full_like(norms, 2**0.5))


def test_a_convolutional_network_is_rescaled_channel_by_channel():
    torch.manual_seed(0)
    model = lenet()
    images = torch.randn(3, 1, 28, 28)
    before = model(images)
    normalise_units(model)
    assert torch.allclose(model(images), before, atol=1e-5)
    norms = (model.conv2.weight.square().sum(dim=(1, 2, 3)) + model.conv2.bias**2).sqrt()
    assert torch.allclose(norms, torch.full_like(norms, 2**0.5))


def test_units_without_incoming_weights_are_left_alone():
    model = mlp([3, 4, 2], rng=0)
    with torch.no_grad():
        model.hidden1.weight[1] = 0
        model.hidden1.bias[1] = 0
    column = model.output.weight[:, 1].clone()
    normalise_units(model)
    assert torch.equal(model.output.weight[:, 1], column)
    assert bool(model.hidden1.weight.isfinite().all())


def test_networks_without_biases_are_rescaled_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7, bias=False), nn.ReLU(), nn.Linear(7, 3, bias=False))
    inputs = torch.randn(9, 5)
    before = model(inputs)
    normalise_units(model)
    assert torch.allclose(model(inputs), before, atol=1e-5)
    assert torch.allclose(model[0].weight.norm(dim=1), torch.full((7,), 2**0.5))


def test_clusterable_weights_are_larger_within_modules_and_smaller_between():
    original, model = mlp([20, 30, 30, 10], rng=0), mlp([20, 30, 30, 10], rng=0)
    first, second, third = make_clusterable(model, rng=1)
    assert torch.equal(model.hidden1.weight, original.hidden1.weight)
    assert third.tolist() == list(range(10))
    for layer, sources, targets in (("hidden2", first, second), ("output", second, third)):
        factor = (getattr(model, layer).weight / getattr(original, layer).weight).detach().numpy()
        same = targets[:, None] == sources
        assert factor[same] == pytest.approx(4.6)
        assert factor[~same] == pytest.approx(0.6)


def test_clusterable_weights_keep_their_mean_size():
    original, model = mlp([5, 400, 400], rng=0), mlp([5, 400, 400], rng=0)
    make_clusterable(model, rng=1)
    assert float(model.output.weight.detach().abs().mean()) == pytest.approx(
        float(original.output.weight.detach().abs().mean()), rel=0.02
    )


def test_more_outputs_than_modules_are_drawn_like_other_units():
    modules = make_clusterable(mlp([5, 9, 40], rng=0), rng=0, n_modules=3)
    assert set(modules[-1].tolist()) == {0, 1, 2}


def test_a_clusterable_convolutional_network_multiplies_whole_kernels():
    torch.manual_seed(0)
    model = lenet()
    before = model.hidden.weight.clone()
    modules = make_clusterable(model, rng=0, weaker=0.8)
    factor = (model.hidden.weight / before).detach().reshape(120, 16, 16)
    assert np.allclose(factor[:, :, 0], np.where(modules[2][:, None] == modules[1], 2.8, 0.8))
    assert torch.allclose(factor, factor[:, :, :1].expand_as(factor))


def test_models_that_are_no_chain_are_refused():
    with pytest.raises(GraphError, match="no linear or convolutional layers"):
        ClusterabilityPenalty()(nn.ReLU())
    with pytest.raises(GraphError, match=r"layer 1 of the chain should read 4 units"):
        make_clusterable(nn.Sequential(nn.Linear(3, 4), nn.Linear(5, 2)), rng=0)
    with pytest.raises(GraphError, match=r"also has 1\.weight, 1\.bias"):
        normalise_units(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)))
    with pytest.raises(GraphError, match="1 to 3 eigenvalues"):
        eigenvalue_sum(_random_chain(4, 6), 4)
    with pytest.raises(GraphError, match="weaker=2"):
        make_clusterable(mlp([3, 4], rng=0), rng=0, weaker=2)
