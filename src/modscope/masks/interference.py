"""Can the weights of one mask be changed without touching the other tasks?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from modscope.calling import check_model
from modscope.masks.applied import masked_parameters
from modscope.masks.compared import common_strata
from modscope.masks.mask import Mask
from modscope.masks.removal import random_like
from modscope.progress import track
from modscope.randomness import Rng, numbered, seed_of
from modscope.tasks.task import Task, as_tasks, evaluate


@dataclass(frozen=True)
class Interference:
    """What tasks lose when noise is added to the weights of one mask, and to as many random weights."""

    tasks: tuple[str, ...]
    lost: tuple[float, ...]  # accuracy lost per task; noise on the mask's weights
    lost_random: tuple[tuple[float, ...], ...]  # the same, per sample of random weights
    p_values: tuple[float, ...]  # that random weights hurt the task as little as the mask's weights do

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values."""
        return asdict(self)


def interference(
    model: nn.Module,
    mask: Mask,
    tasks: Task | Sequence[Task],
    *,
    noise: float = 1.0,
    n_samples: int = 19,
    rng: Rng = 0,
) -> Interference:
    """Whether the weights of one mask can be changed without touching the other tasks.

    Gaussian noise, `noise` times each tensor's spread, is added to the mask's weights, and to as many random weights
    of the same strata.
    """
    model = check_model(model)
    several = as_tasks(tasks)
    seed = seed_of(rng)
    whole = np.array([evaluate(model, task).accuracy for task in several])
    strata = common_strata([mask])

    def lost(changed: Mask, index: int) -> Float[np.ndarray, " tasks"]:
        noisy = _with_noise(model, changed, noise, numbered(seed, "noise", index))
        return np.asarray(whole - [evaluate(noisy, task).accuracy for task in several])

    of_mask = np.asarray(np.mean([lost(mask, index) for index in range(3)], axis=0))
    draws = track(range(n_samples), "interference")
    of_random = np.array([lost(random_like(mask, strata, numbered(seed, "weights", i)), i) for i in draws])
    p_values = ((of_random <= of_mask).sum(axis=0) + 1) / (n_samples + 1)
    return Interference(
        tuple(task.name for task in several),
        tuple(of_mask.tolist()),
        tuple(tuple(row) for row in of_random.tolist()),
        tuple(p_values.tolist()),
    )


def _with_noise(model: nn.Module, changed: Mask, noise: float, rng: np.random.Generator) -> nn.Module:
    noisy = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in masked_parameters(noisy, changed).items():
            where = changed.kept[name].to(parameter.device)
            values = torch.from_numpy(rng.standard_normal(tuple(parameter.shape))).to(parameter)
            parameter.add_(values * parameter.std() * noise * where)
    return noisy
