from __future__ import annotations

import contextlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from modscope.masks.learner import MaskLearner
from modscope.masks.optimise import LOCAL
from modscope.masks.sampling import ESTIMATORS
from modscope.tasks.task import Task


def sign_task(dtype: torch.dtype) -> Task:
    """Whether the first of four inputs is above 0."""
    inputs = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    batches = [(inputs.to(dtype), (inputs[:, 0] > 0).long())]
    return Task(
        "sign", batches, batches, loss=lambda o, t: F.cross_entropy(o.float(), t), correct=lambda o, t: o.argmax(1) == t
    )


def reader() -> nn.Module:
    """A network that copies each of four inputs to two units and answers by the first two, the others adding noise."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 4, 8), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model[0].weight.copy_(torch.eye(4).repeat_interleave(2, dim=0))
        model[2].weight[0, 0, :2] = 2.0
        model[2].weight[1:, 0, 2:] = 0.5 * torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
        model[4].weight.copy_(torch.tensor([[-1.0, 0.3, 0.3, 0.3], [1.0, -0.3, -0.3, -0.3]]))
    return model


@pytest.mark.parametrize("precision", ["bfloat16", "autocast", "float64"])
@pytest.mark.parametrize("estimator", [LOCAL, *ESTIMATORS])
def test_masks_are_learned_in_the_precision_that_the_model_runs_in(estimator: str, precision: str) -> None:
    dtype = {"bfloat16": torch.bfloat16, "autocast": torch.float32, "float64": torch.float64}[precision]
    model = reader().to(dtype)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    is_amp = precision == "autocast"
    learner = MaskLearner(estimator=estimator, n_steps=60, learning_rate=0.2, penalty=0.5)
    with torch.autocast("cpu", torch.bfloat16) if is_amp else contextlib.nullcontext():
        mask = learner(model, sign_task(dtype))
    assert mask["0.weight"][:2, 0].all()  # from the input that counts to the units that are read
    assert mask["2.weight"][0, 0, :2].all()
    assert mask.density < 0.6
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("precision", ["bfloat16", "autocast", "float64"])
@pytest.mark.parametrize("estimator", [LOCAL, *ESTIMATORS])
def test_masks_of_layers_on_vectors_are_learned_in_any_precision(estimator: str, precision: str) -> None:
    dtype = {"bfloat16": torch.bfloat16, "autocast": torch.float32, "float64": torch.float64}[precision]
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 2, bias=False)).to(dtype)
    with torch.no_grad():
        model[0].weight.copy_(torch.cat([torch.eye(4), -torch.eye(4)]))
        model[2].weight.copy_(torch.tensor([[-2.0, 0.2, 0.2, 0.2, 2.0, 0.2, 0.2, 0.2]]) * torch.tensor([[1.0], [-1.0]]))
    learner = MaskLearner(estimator=estimator, n_steps=60, learning_rate=0.2, penalty=0.5)
    with torch.autocast("cpu", torch.bfloat16) if precision == "autocast" else contextlib.nullcontext():
        mask = learner(model, sign_task(dtype))
    assert mask["0.weight"][0, 0]
    assert mask["0.weight"][4, 0]
    assert mask.density < 0.6
