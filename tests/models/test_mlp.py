"""The papers' perceptron: its layers' names, and where its weights come from."""

import numpy as np
import pytest
import torch

from modscope.errors import WiringError
from modscope.models.mlp import mlp


def test_layers_have_readable_names_and_the_asked_sizes():
    model = mlp([128, 64, 32, 20], rng=0)
    assert [name for name, _ in model.named_children()] == ["hidden1", "relu1", "hidden2", "relu2", "output"]
    assert model(torch.zeros(3, 128)).shape == (3, 20)


def test_weights_come_from_rng_alone():
    state = torch.get_rng_state()
    first, second, third = mlp([5, 4, 3], rng=7), mlp([5, 4, 3], rng=np.random.default_rng(7)), mlp([5, 4, 3], rng=8)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.hidden1.weight, mlp([5, 4, 3], rng=7).hidden1.weight)
    assert not torch.equal(first.hidden1.weight, third.hidden1.weight)
    assert torch.equal(first.output.bias, mlp([5, 4, 3], rng=7).output.bias)
    assert second.hidden1.weight.shape == (4, 5)


def test_weights_fill_the_interval_of_one_over_the_root_of_the_inputs():
    weight = mlp([100, 400], rng=0).output.weight.detach()
    assert weight.abs().max() <= 0.1
    assert float(weight.std()) == pytest.approx(0.1 / 3**0.5, rel=0.02)


def test_glorot_weights_fill_their_interval_and_biases_are_zero():
    layer = mlp([100, 400], rng=0, initial="glorot").output
    bound = (6 / 500) ** 0.5
    assert layer.weight.detach().abs().max() <= bound
    assert float(layer.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    assert bool((layer.bias == 0).all())


def test_an_unknown_rule_is_refused():
    with pytest.raises(WiringError, match="'fan_in' or 'glorot', got 'he'"):
        mlp([3, 4], rng=0, initial="he")


def test_impossible_sizes_are_refused():
    for sizes in ([], [3], [3, 0]):
        with pytest.raises(WiringError, match="an MLP needs"):
            mlp(sizes, rng=0)
