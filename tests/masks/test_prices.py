from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modscope.masks.learner import MaskLearner
from modscope.masks.prices import COST_OF_ALL, COST_OF_ONE, LEAST_COST_OF_ALL
from modscope.tasks.task import Task


def default_price(model: nn.Module, inputs: Tensor, loss: Callable[[Tensor, Tensor], Tensor], **options: Any) -> float:
    """What one logit costs: the default penalty over the examples in a step."""
    batches = [(inputs, torch.arange(len(inputs)) % 4)]
    task = Task("priced", batches, batches, loss=loss, correct=lambda o, t: o.argmax(1) == t)
    mask = MaskLearner(n_steps=1, **options)(model, task)
    return float(mask.details["learner"]["penalty"]) / len(inputs)


def wide() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 200), nn.ReLU(), nn.Linear(200, 4, bias=False))


INPUTS = torch.randn(32, 6, generator=torch.Generator().manual_seed(1))


def test_all_weights_together_cost_half_of_the_loss_without_them() -> None:
    n_weights = 6 * 200 + 200 * 4
    loss_without = float(torch.tensor(4.0).log())  # all logits are 0 without weights
    price = default_price(wide(), INPUTS, F.cross_entropy)
    assert price * n_weights == pytest.approx(COST_OF_ALL * loss_without, rel=0.005)


def test_the_price_follows_the_scale_of_the_loss_and_not_the_size_of_the_batch() -> None:
    price = default_price(wide(), INPUTS, F.cross_entropy)
    assert default_price(wide(), INPUTS.repeat(4, 1), F.cross_entropy) == pytest.approx(price, rel=0.02)
    tenfold = default_price(wide(), INPUTS, lambda o, t: 10 * F.cross_entropy(o, t))
    assert tenfold == pytest.approx(10 * price, rel=0.02)


def test_few_logits_do_not_share_the_price_of_many() -> None:
    groups = {"0.weight": torch.arange(200)[:, None] % 5}
    price = default_price(wide(), INPUTS, F.cross_entropy, granularity=groups)
    without_first = wide()[2](torch.relu(wide()[0].bias.expand(32, -1)))
    loss_without = float(F.cross_entropy(without_first, torch.arange(32) % 4).detach())
    assert price == pytest.approx(LEAST_COST_OF_ALL / 5 * loss_without, rel=0.01)


def test_no_logit_of_some_hundred_costs_more_than_a_thousandth_part_of_the_loss() -> None:
    price = default_price(wide(), INPUTS, F.cross_entropy, granularity="row")
    without = torch.log(torch.tensor(4.0))
    assert price == pytest.approx(COST_OF_ONE * float(without), rel=0.05)


def test_a_loss_that_is_nothing_without_the_weights_is_priced_by_what_they_are_worth() -> None:
    def minus_margin(outputs: Tensor, targets: Tensor) -> Tensor:
        return -outputs.gather(1, targets[:, None]).mean() - 1e-3 * outputs.square().mean()

    model = wide()
    worth = -float(minus_margin(model(INPUTS), torch.arange(32) % 4).detach())
    assert worth > 0
    assert default_price(model, INPUTS, minus_margin) * 2000 == pytest.approx(COST_OF_ALL * worth, rel=0.01)


def test_a_loss_that_is_not_finite_without_the_weights_still_has_a_price() -> None:
    def of_size(outputs: Tensor, targets: Tensor) -> Tensor:
        del targets
        return 1 / outputs.square().mean()

    assert 0 < default_price(wide(), INPUTS, of_size) < 1
