"""Would learning move the masked network as it moves the whole one?"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

from modscope.calling import arguments, check_model, device_of, evaluation_mode, moved, split_batch
from modscope.masks.applied import masked_parameters
from modscope.masks.mask import Mask
from modscope.tasks.task import Task, checked_loss


def gradient_cosine(model: nn.Module, mask: Mask, task: Task) -> dict[str, float]:
    """Cosine between the whole and the masked network's loss gradients on the kept weights, per parameter and in all.

    Near 1: learning would move the masked network as it moves the whole one. NaN where a gradient is zero.
    """
    model = check_model(model)
    parameters = {name: parameter.detach() for name, parameter in masked_parameters(model, mask).items()}
    kept = {name: mask.kept[name].to(weight.device) for name, weight in parameters.items()}
    whole = _gradients(model, task, parameters)
    masked = _gradients(model, task, {name: weight * kept[name] for name, weight in parameters.items()})
    chosen = {name: (whole[name][kept[name]], masked[name][kept[name]]) for name in parameters}
    cosines = {name: _cosine(*pair) for name, pair in chosen.items()}
    together = [torch.cat(parts) for parts in zip(*chosen.values(), strict=True)]
    return {**cosines, "all": _cosine(together[0], together[1])}


def _gradients(model: nn.Module, task: Task, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradient of the mean test loss for some weights."""
    tracked = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    frozen = {name: parameter.detach() for name, parameter in model.named_parameters() if name not in weights}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    with evaluation_mode(model):
        for batch in task.batches("test"):
            inputs, targets = split_batch(model, batch)
            positional, keywords = arguments(model, inputs)
            outputs = functional_call(model, {**frozen, **tracked}, positional, keywords)
            loss = checked_loss(task, outputs, moved(targets, device_of(model)))
            gradients = torch.autograd.grad(loss, list(tracked.values()), allow_unused=True)
            for name, gradient in zip(tracked, gradients, strict=True):
                if gradient is not None:
                    total[name] += gradient
    return total


def _cosine(one: Tensor, other: Tensor) -> float:
    length = one.norm() * other.norm()
    return float((one @ other) / length) if length > 0 else float("nan")
