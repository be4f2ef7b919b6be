"""Matching the whole network's outputs: a task that needs no labels."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import families
from modscope.errors import TaskError
from modscope.masks.applied import applied
from modscope.masks.learner import MaskLearner
from modscope.models.mlp import mlp
from modscope.tasks.losses import match_outputs
from modscope.tasks.task import evaluate


@pytest.fixture
def batches() -> list[torch.Tensor]:
    return [torch.randn(5, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


def test_the_whole_network_matches_itself(batches):
    model = mlp([3, 6, 4], rng=0)
    evaluation = evaluate(model, match_outputs(model, batches, batches))
    assert evaluation.accuracy == 1.0
    assert evaluation.loss == pytest.approx(0, abs=1e-6)


def test_the_loss_of_another_network_is_its_divergence_from_the_whole_one(batches):
    whole, other = mlp([3, 6, 4], rng=0), mlp([3, 6, 4], rng=1)
    evaluation = evaluate(other, match_outputs(whole, batches, batches))
    divergences, agreements = [], []
    for example in torch.cat(batches):
        p, q = (torch.softmax(model(example), dim=0).detach().double().numpy() for model in (whole, other))
        divergences.append(float((p * np.log(p / q)).sum()))
        agreements.append(p.argmax() == q.argmax())
    assert evaluation.loss == pytest.approx(np.mean(divergences), rel=1e-4)
    assert evaluation.accuracy == pytest.approx(np.mean(agreements))


def test_squared_error_is_the_mean_over_all_outputs(batches):
    whole, other = mlp([3, 6, 4], rng=0), mlp([3, 6, 4], rng=1)
    task = match_outputs(whole, batches, batches, distance="squared_error")
    inputs = torch.cat(batches)
    assert evaluate(other, task).loss == pytest.approx((whole(inputs) - other(inputs)).square().mean().item(), rel=1e-5)


def test_targets_stay_those_of_the_network_as_it_was(batches):
    model = mlp([3, 6, 4], rng=0)
    task = match_outputs(model, batches, batches)
    with torch.no_grad():
        model.output.weight.mul_(-1)
    assert evaluate(model, task).loss > 0.01
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_labels_of_batches_play_no_part(batches):
    model, other = mlp([3, 6, 4], rng=0), mlp([3, 6, 4], rng=1)
    labelled = [(inputs, torch.zeros(len(inputs))) for inputs in batches]
    with_labels, without = (match_outputs(model, data, data) for data in (labelled, batches))
    assert evaluate(other, with_labels).loss == evaluate(other, without).loss


class _WithLogits(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = mlp([3, 4], rng=0)

    def forward(self, x: torch.Tensor) -> SimpleNamespace:
        logits = self.inner(x)
        return SimpleNamespace(logits=logits, twice=2 * logits)


def test_outputs_with_logits_are_read_and_others_are_named_by_outputs_of(batches):
    model = _WithLogits()
    assert evaluate(model, match_outputs(model, batches, batches)).accuracy == 1.0
    task = match_outputs(model, batches, batches, outputs_of=lambda outputs: outputs.twice)
    assert torch.equal(next(iter(task.test))[1], 2 * model.inner(batches[0]))


def test_outputs_without_logits_and_unknown_distances_are_refused(batches):
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> str:
            return "odd"

    with pytest.raises(TaskError, match="the model returns str, which is no tensor and has no logits"):
        evaluate(Odd(), match_outputs(Odd(), batches, batches))
    with pytest.raises(TaskError, match="distance must be one of kl, squared_error, got 'l1'"):
        match_outputs(mlp([3, 4], rng=0), batches, batches, distance="l1")


def test_a_masked_gpt2_matches_itself_where_nothing_is_removed_and_learns_a_mask_without_labels():
    model = families.gpt2(initializer_range=0.5).eval()  # outputs that differ from token to token
    tokens = torch.randint(0, 11, (4, 8), generator=torch.Generator().manual_seed(0))
    batches = [{"input_ids": tokens}]
    task = match_outputs(model, batches, batches)
    whole = evaluate(model, task)
    assert whole.accuracy == 1.0
    assert whole.loss == pytest.approx(0, abs=1e-6)
    mask = MaskLearner(n_steps=30, initial_logit=2.0, n_samples=2)(model, task)
    assert 0 < mask.density < 1
    with applied(model, mask):
        masked = evaluate(model, task)
    with applied(model, ~mask):
        rest = evaluate(model, task)
    assert 0 < masked.loss < rest.loss
    assert evaluate(model, task).loss == pytest.approx(0, abs=1e-6)
