"""Where does one batch of a task pull the weights?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from modscope.calling import device_of, moved, split_batch
from modscope.masks.running import Running
from modscope.tasks.task import Task, checked_loss


def task_gradients(model: nn.Module, task: Task, batch: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of the task's loss on one batch, by parameter name; 0 for weights that are not read.

    Args:
        model: In eval mode; what its other parameters are is left as it is.
        task: Gives the loss.
        batch: One of the task's.
        weights: What stands in for the parameters of these names.
    """
    tracked = {name: weight.detach().clone().requires_grad_() for name, weight in weights.items()}
    frozen = {name: parameter.detach() for name, parameter in model.named_parameters() if name not in weights}
    inputs, targets = split_batch(model, batch)
    outputs = Running(model)({**frozen, **tracked}, inputs, task)
    loss = checked_loss(task, outputs, moved(targets, device_of(model)))
    gradients = torch.autograd.grad(loss, list(tracked.values()), allow_unused=True)
    return {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }
