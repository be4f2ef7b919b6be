"""Training is the same every time, leaves torch's global state alone, and does what AdamW says."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modscope.data.examples import Examples
from modscope.errors import TaskError
from modscope.models.mlp import mlp
from modscope.tasks.task import Task, evaluate
from modscope.training.fit import fit
from modscope.training.pruning import MagnitudePruning


def _task(examples: Examples, batches=None) -> Task:
    batches = examples.batches(32) if batches is None else batches
    return Task(
        "sign of the sum",
        batches,
        batches,
        loss=F.cross_entropy,
        correct=lambda logits, targets: logits.argmax(dim=1) == targets,
    )


@pytest.fixture
def examples() -> Examples:
    inputs = torch.from_numpy(np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32))
    return Examples(inputs, (inputs.sum(dim=1) > 0).long())


def _weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_the_same_rng_gives_the_same_weights_bit_for_bit(examples):
    first, second, third = (mlp([6, 8, 2], rng=1) for _ in range(3))
    losses = [
        fit(model, _task(examples), n_steps=30, rng=seed) for model, seed in ((first, 5), (second, 5), (third, 6))
    ]
    assert torch.equal(_weights(first), _weights(second))
    assert np.array_equal(losses[0], losses[1])
    assert not torch.equal(_weights(first), _weights(third))


def test_dropout_too_depends_on_rng_alone_and_the_global_generator_is_left_as_it_was(examples):
    models = [nn.Sequential(mlp([6, 8], rng=1), nn.Dropout(0.5), mlp([8, 2], rng=2)) for _ in range(2)]
    state = torch.get_rng_state()
    fit(models[0], _task(examples), n_steps=20, rng=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(7)
    fit(models[1], _task(examples), n_steps=20, rng=3)
    assert torch.equal(_weights(models[0]), _weights(models[1]))


def test_training_learns_the_task(examples):
    model = mlp([6, 16, 2], rng=0)
    losses = fit(model, _task(examples), n_steps=400, rng=0, learning_rate=1e-2)
    assert losses.shape == (400,)
    assert losses[-20:].mean() < 0.2 * losses[:5].mean()
    assert evaluate(model, _task(examples)).accuracy > 0.95


def test_a_step_is_a_step_of_adamw_on_the_drawn_batch(examples):
    """One example only, so that every drawn batch is known; the update is written from the paper's algorithm 2."""
    one = examples[:1]
    model = mlp([6, 2], rng=0)
    weight = model.output.weight.detach().double().clone()
    rate, decay, beta1, beta2 = 1e-2, 0.5, 0.9, 0.999
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    bias = model.output.bias.detach().double().clone()
    bias_first, bias_second = torch.zeros_like(bias), torch.zeros_like(bias)
    x, y = one.inputs[0].double(), int(one.targets[0])
    for step in range(1, 4):
        error = torch.softmax(weight @ x + bias, dim=0) - F.one_hot(torch.tensor(y), 2)
        for value, m, v, gradient in (
            (weight, first, second, torch.outer(error, x)),
            (bias, bias_first, bias_second, error),
        ):
            m.mul_(beta1).add_((1 - beta1) * gradient)
            v.mul_(beta2).add_((1 - beta2) * gradient**2)
            value.mul_(1 - rate * decay)
            value.sub_(rate * (m / (1 - beta1**step)) / ((v / (1 - beta2**step)).sqrt() + 1e-8))
    fit(model, _task(one), n_steps=3, rng=0, learning_rate=rate, weight_decay=decay, batch_size=4)
    assert torch.allclose(model.output.weight.double(), weight, atol=1e-6)
    assert torch.allclose(model.output.bias.double(), bias, atol=1e-6)


def test_pruned_weights_are_exactly_zero_at_the_end_and_stay_zero(examples):
    model = mlp([6, 20, 2], rng=0)
    fit(model, _task(examples), n_steps=60, rng=0, pruning=MagnitudePruning(0.25, begin=10, end=30, every=5))
    assert [int((layer.weight != 0).sum()) for layer in (model.hidden1, model.output)] == [30, 10]
    assert bool((model.hidden1.bias != 0).all())


def test_lists_encoded_batches_and_dicts_train_like_the_examples_themselves(examples):
    in_memory, in_list = mlp([6, 8, 2], rng=1), mlp([6, 8, 2], rng=1)
    fit(in_memory, _task(examples), n_steps=10, rng=0)
    fit(in_list, _task(examples, list(examples.batches(13))), n_steps=10, rng=0)
    assert torch.equal(_weights(in_memory), _weights(in_list))

    encoded = mlp([6, 8, 2], rng=1)
    halved = Examples(examples.inputs / 2, examples.targets)
    fit(encoded, _task(examples, halved.batches(13, encode=lambda inputs: 2 * inputs)), n_steps=10, rng=0)
    assert torch.equal(_weights(in_memory), _weights(encoded))

    dicts = [{"input": inputs, "label": targets} for inputs, targets in examples.batches(13)]
    from_dicts = mlp([6, 8, 2], rng=1)
    task = Task(
        "dicts",
        dicts,
        dicts,
        loss=lambda logits, batch: F.cross_entropy(logits, batch["label"]),
        correct=lambda logits, batch: logits.argmax(dim=1) == batch["label"],
    )
    fit(from_dicts, task, n_steps=10, rng=0)
    assert torch.equal(_weights(in_memory), _weights(from_dicts))


def test_frozen_parameters_and_the_modes_of_layers_are_left_as_they_were(examples):
    model = mlp([6, 8, 2], rng=1)
    model.hidden1.weight.requires_grad_(False)
    model.hidden1.eval()
    before = model.hidden1.weight.clone()
    fit(model, _task(examples), n_steps=5, rng=0, weight_decay=1.0)
    assert torch.equal(model.hidden1.weight, before)
    assert [layer.training for layer in model] == [False, True, True]


def test_impossible_training_is_refused_with_the_reason(examples):
    with pytest.raises(TaskError, match="at least one step"):
        fit(mlp([6, 2], rng=0), _task(examples), n_steps=0, rng=0)
    with pytest.raises(TaskError, match=r"learning_rate=0\.0"):
        fit(mlp([6, 2], rng=0), _task(examples), n_steps=1, rng=0, learning_rate=0.0)
    with pytest.raises(TaskError, match="no parameters to train"):
        fit(nn.Identity(), _task(examples), n_steps=1, rng=0)
    with pytest.raises(TaskError, match=r"training the model on task 'sign of the sum' failed on inputs \(128, 6\)"):
        fit(mlp([5, 2], rng=0), _task(examples), n_steps=1, rng=0)
    with pytest.raises(TaskError, match="no train data"):
        fit(mlp([6, 2], rng=0), _task(examples, []), n_steps=1, rng=0)
    with pytest.raises(TaskError, match="no train data"):
        fit(mlp([6, 2], rng=0), _task(examples[:0]), n_steps=1, rng=0)
    with pytest.raises(TaskError, match="smaller learning rate"):
        fit(mlp([6, 8, 2], rng=0), _task(Examples(examples.inputs * torch.inf, examples.targets)), n_steps=9, rng=0)
