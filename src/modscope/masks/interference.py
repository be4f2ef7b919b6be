"""Can the weights of one mask be changed without touching the other tasks?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

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
from modscope.records import Record, record_of
from modscope.tasks.task import Task, as_tasks, evaluate

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Interference:
    """What tasks lose when noise is added to the weights of one mask, and to as many random weights."""

    tasks: tuple[str, ...]
    lost: tuple[float, ...]  # accuracy lost per task; noise on the mask's weights
    lost_random: tuple[tuple[float, ...], ...]  # the same, per sample of random weights
    p_values: tuple[float, ...]  # that random weights hurt the task as little as the mask's weights do

    def __str__(self) -> str:
        return "; ".join(
            f"{task} loses {lost:.3f}, with as many random weights {np.mean(random):.3f} (p = {p:.3f})"
            for task, lost, random, p in zip(self.tasks, self.lost, self._random_by_task, self.p_values, strict=True)
        )

    @property
    def _random_by_task(self) -> Float[np.ndarray, "tasks samples"]:
        return np.array(self.lost_random).T

    def to_frame(self) -> pl.DataFrame:
        """One row per task: accuracy lost, mean and spread of the same for random weights, p."""
        import polars as pl

        random = self._random_by_task
        columns = {"task": self.tasks, "lost": self.lost, "random_mean": random.mean(axis=1)}
        return pl.DataFrame({**columns, "random_sd": random.std(axis=1), "p_value": self.p_values})

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values."""
        return asdict(self)

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("interference", self.to_dict())

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())

    def plot(self, ax: Axes | None = None) -> Axes:
        """Accuracy lost per task, beside every sample of random weights."""
        import matplotlib.pyplot as plt

        axes = plt.subplots()[1] if ax is None else ax
        axes.bar(self.tasks, self.lost, width=0.5, label="noise on the mask's weights")
        for place, samples in enumerate(self._random_by_task):
            axes.plot([place] * len(samples), samples, "k_", label="on as many random weights" if place == 0 else None)
        axes.set_ylabel("accuracy lost")
        axes.legend()
        return axes


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
