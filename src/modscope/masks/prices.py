"""What does a kept weight cost, when the user names no price?"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from modscope.calling import split_batch
from modscope.masks.chunks import n_examples
from modscope.masks.objective import Objective
from modscope.tasks.task import checked_loss

# All logits up by one costs half of what the task can lose. In the same unit (their penalty times their weights, over
# the batch) the paper's experiments lie mostly between 0.3 and 1.5 nats.
COST_OF_ALL = 0.5
# Some hundred logits (units) would share that among few. A logit settles where p (1 - p) times what its weights are
# worth is its price: what is worth less than four prices, here about a thousandth of the loss, is removed.
COST_OF_ONE = 1 / 3000
# A few logits (clusters, heads) stand for much of the network each: all together cost no less than this.
LEAST_COST_OF_ALL = 1 / 20


def default_penalty(objective: Objective, logits: list[Tensor]) -> float:
    """The penalty with which all logits together cost `COST_OF_ALL` of what the task can lose.

    None costs more than `COST_OF_ONE`, unless they are so few that all would cost less than `LEAST_COST_OF_ALL`. So one
    default suits networks of a thousand and of a million weights, losses of any scale, and batches of any size.

    Args:
        objective: The task's loss under masks.
        logits: As the layout made them; only their number matters.
    """
    n_logits = sum(tensor.numel() for tensor in logits)
    loss, n_examples = _loss_at_stake(objective, logits)
    share = min(COST_OF_ALL / n_logits, max(COST_OF_ONE, LEAST_COST_OF_ALL / n_logits))
    penalty = share * loss * n_examples
    return float(f"{penalty:.3g}")  # a number to read, and to give again


def _loss_at_stake(objective: Objective, logits: list[Tensor]) -> tuple[float, int]:
    """What the task can lose on its first batch, and the number of examples in it.

    That is the loss without the masked weights, or what they are worth, if that is more: a loss such as a difference
    of logits is 0 without them, and below 0 with them. An untrained network has something at stake too.
    """
    batch = next(objective.task.batches("train"))
    with torch.no_grad():
        whole, without = (_loss_where(objective, logits, sign, batch) for sign in (1.0, -1.0))
    at_stake = [value for value in (abs(without), without - whole) if math.isfinite(value) and value > 0]
    return max(at_stake, default=1.0), n_examples(split_batch(objective.model, batch)[0], objective.task.batch_dim)


def _loss_where(objective: Objective, logits: list[Tensor], sign: float, batch: object) -> float:
    """The loss with everything kept (sign 1) or removed (sign -1)."""
    outputs, targets = objective.thresholded_outputs([torch.full_like(tensor, sign) for tensor in logits], batch)
    return float(checked_loss(objective.task, outputs, targets))
