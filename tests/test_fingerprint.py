"""The fingerprint sees what it says it sees: a test of the tool that other tests trust."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from fingerprint import differences, fingerprint


def small_model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def test_nothing_changes_when_nothing_is_done():
    model = small_model()
    before = fingerprint(model)
    assert differences(before, fingerprint(model)) == []


def test_a_forward_pass_in_eval_mode_changes_nothing():
    model = small_model().eval()
    before = fingerprint(model)
    with torch.no_grad():
        model(torch.ones(5, 3))
    assert differences(before, fingerprint(model)) == []


@torch.no_grad()
def write_weight(model: nn.Sequential) -> None:
    model[0].weight[0, 0] += 1


@torch.no_grad()
def write_weight_and_put_it_back(model: nn.Sequential) -> None:
    model[0].weight.add_(1).copy_(model[0].weight - 1)


CHANGES = {
    "a weight": write_weight,
    "a weight written and put back": write_weight_and_put_it_back,
    "a weight replaced": lambda model: setattr(model[0], "weight", nn.Parameter(model[0].weight.detach().clone())),
    "a gradient": lambda model: model(torch.ones(5, 3)).sum().backward(),
    "running statistics": lambda model: model(torch.ones(5, 3)),
    "a mode": lambda model: model[1].eval(),
    "a frozen weight": lambda model: model[3].requires_grad_(False),
    "a forward hook": lambda model: model[2].register_forward_hook(lambda *_: None),
    "a forward replaced": lambda model: setattr(model[2], "forward", torch.tanh),
    "an attribute": lambda model: setattr(model, "note", 1),
    "torch's random state": lambda model: torch.rand(1),
    "numpy's random state": lambda model: np.random.rand(1),  # noqa: NPY002
    "python's random state": lambda model: random.random(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_each_change_is_seen(change):
    model = small_model()
    before = fingerprint(model)
    change(model)
    assert differences(before, fingerprint(model))


def test_a_thread_count_is_seen():
    model = small_model()
    before = fingerprint(model)
    torch.set_num_threads(2)
    try:
        assert differences(before, fingerprint(model)) == ["threads: 1 -> 2"]
    finally:
        torch.set_num_threads(1)
