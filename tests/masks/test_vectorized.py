"""Masked copies run at once by torch.vmap: the same masks as one after another, and back to that where it fails."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modscope.masks.learner import MaskLearner
from modscope.masks.mask import Mask
from modscope.masks.sampling import ESTIMATORS
from modscope.tasks.task import Task


class Attentive(nn.Module):
    """Attention over six positions, with a mask of its own making."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.readout = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden, _ = self.attention(x, x, x)
        out: Tensor = self.readout(hidden.mean(1))
        return out


class Recurrent(nn.Module):
    """An LSTM, which vmap cannot run."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 5, batch_first=True)
        self.readout = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.readout(self.lstm(x)[0][:, -1])
        return out


def task_on(*shape: int, sizes: tuple[int, ...] = (16, 16)) -> Task:
    generator = torch.Generator().manual_seed(0)
    batches = [
        (torch.randn(n, *shape, generator=generator), torch.randint(3, (n,), generator=generator)) for n in sizes
    ]
    return Task("t", batches, batches, loss=F.cross_entropy, correct=lambda out, y: out.argmax(1) == y)


def learned(model: nn.Module, task: Task, **options: Any) -> Mask:
    torch.manual_seed(1)
    return MaskLearner(n_steps=12, penalty=0.01, **options)(model, task, rng=0)


def convolutional() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3))


def assert_same(one: Mask, other: Mask) -> None:
    assert one.logits is not None
    assert other.logits is not None
    for name, logits in one.logits.items():
        torch.testing.assert_close(logits, other.logits[name], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("estimator", [*ESTIMATORS, "local_reparameterization"])
@pytest.mark.parametrize("sizes", [(16, 16), (18, 16, 6)])
def test_a_network_of_convolutions_gets_the_mask_that_the_loop_gives(estimator: str, sizes: tuple[int, ...]) -> None:
    model, task = convolutional(), task_on(2, 6, 6, sizes=sizes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        at_once = learned(model, task, estimator=estimator, vmap=True)
    assert_same(at_once, learned(model, task, estimator=estimator))


def test_attention_runs_at_once_and_its_quick_way_is_allowed_again_afterwards() -> None:
    torch.manual_seed(0)
    model, task = Attentive(), task_on(6, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch names the attention for which it has no batched kernel
        at_once = learned(model, task, estimator="straight_through", vmap=True)
    assert torch.backends.mha.get_fastpath_enabled()
    assert_same(at_once, learned(model, task, estimator="straight_through"))


def test_what_vmap_cannot_run_is_said_and_runs_one_after_another() -> None:
    torch.manual_seed(0)
    model, task = Recurrent(), task_on(6, 8)
    with pytest.warns(UserWarning, match="does not run under torch.vmap .*one after another"):
        after_all = learned(model, task, estimator="straight_through", vmap=True)
    assert_same(after_all, learned(model, task, estimator="straight_through"))


def test_the_record_of_a_mask_says_whether_vmap_was_asked_for() -> None:
    mask = learned(convolutional(), task_on(2, 6, 6), estimator="straight_through", vmap=True)
    assert mask.details["learner"]["vmap"] is True
