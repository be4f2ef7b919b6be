"""Which weights can a task's mask depend on, and which random weights are a fair comparison for them?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modscope.masks.sampling import kept_samples
from modscope.masks.task_gradients import task_gradients
from modscope.tasks.task import Task

N_DECILES = 10
_INITIAL_LOGIT = 2.0
_N_BATCHES = 16  # an input that is zero on all of them counts as unused


def weight_strata(model: nn.Module, task: Task, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By parameter name, 0 where the task's loss never feels the weight, else the decile (1 to 10) of its size.

    A weight is felt if it is not zero and has a non-zero gradient on one of the first batches of the training data,
    under random masks like those that learning starts from. (Without masks a loss that the whole network has brought
    to its minimum, such as matching its own outputs, would feel nothing.) Deciles are taken among the non-zero
    weights of its tensor.

    Args:
        model: In eval mode.
        task: Gives data and loss.
        weights: The masked parameters, detached.
    """
    felt = _felt_weights(model, task, weights)
    return {name: _deciles(weight.detach()) * felt[name].cpu() for name, weight in weights.items()}


def _felt_weights(model: nn.Module, task: Task, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    felt = {name: torch.zeros_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    generator = torch.Generator().manual_seed(0)  # fixed: the strata belong to the task, not to a run
    for batch in itertools.islice(task.batches("train"), _N_BATCHES):
        thinned = {name: _thinned(weight, generator) for name, weight in weights.items()}
        for name, gradient in task_gradients(model, task, batch, thinned).items():
            felt[name] |= gradient != 0
    return felt


def _thinned(weight: Tensor, generator: torch.Generator) -> Tensor:
    kept = next(kept_samples(torch.full(weight.shape, _INITIAL_LOGIT), 1, generator))
    return weight.detach() * kept.to(weight.device)


def _deciles(weight: Tensor) -> Tensor:
    """Decile (1 to 10) of each entry's size among the non-zero ones; 0 for zeros."""
    size = weight.abs().float().cpu().reshape(-1)
    used = size.nonzero().squeeze(1)
    deciles = torch.zeros(len(size), dtype=torch.uint8)
    order = torch.argsort(size[used], stable=True)
    rank = torch.arange(len(used))
    deciles[used[order]] = (rank * N_DECILES // max(len(used), 1) + 1).to(torch.uint8)
    return deciles.view(weight.shape)
