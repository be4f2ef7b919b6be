"""Does removing a mask hurt its own task more than the other?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import nn

from modscope.masks.compared import common_strata
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.removal import accuracy_without, random_like
from modscope.progress import track
from modscope.tasks.task import Task, evaluate


@dataclass(frozen=True)
class Dissociation:
    """Does removing a mask hurt its own task more than the other, both ways round? Accuracies lost, first seeds.

    The test is on the weights that both tasks feel: that each output layer serves its own task needs no test.
    """

    first: str
    second: str
    observed: float  # the smaller of the two differences (own loss - other's loss)
    null_samples: tuple[float, ...]  # the same for as many random weights, matched per tensor and decile of size
    p_value: float
    own_loss: tuple[float, float]
    other_loss: tuple[float, float]  # lost on the other task when this task's mask is removed
    exclusive_own_loss: tuple[float, float]  # only the weights that the other mask does not keep are removed
    exclusive_other_loss: tuple[float, float]

    @property
    def floor(self) -> float:
        """The smallest p that this many samples can give."""
        return 1 / (len(self.null_samples) + 1)


def dissociation(
    model: nn.Module, mask_set: MaskSet, pair: tuple[Task, Task], n_samples: int, rng: np.random.Generator
) -> Dissociation:
    """What two tasks lose without the weights of either mask, against as many random removals as `n_samples`."""
    masks = [mask_set[task.name] for task in pair]
    whole = np.array([evaluate(model, task).accuracy for task in pair])

    def losses(removed: Sequence[Mask]) -> Float[np.ndarray, "masks tasks"]:
        return np.stack([whole - accuracy_without(model, mask, pair) for mask in removed])

    strata = common_strata(masks)
    both_feel = Mask({name: stratum > 0 for name, stratum in strata.items()})
    tested = [mask & both_feel for mask in masks]
    removed = losses(masks)
    exclusive = losses([masks[0] - masks[1], masks[1] - masks[0]])
    draws = track(range(n_samples), f"random removals, {pair[0].name} and {pair[1].name}")
    null = tuple(_double_difference(losses([random_like(mask, strata, rng) for mask in tested])) for _ in draws)
    value = _double_difference(losses(tested))
    # ties count against us (Phipson & Smyth 2010)
    p_value = (sum(sample >= value for sample in null) + 1) / (n_samples + 1)
    return Dissociation(
        pair[0].name,
        pair[1].name,
        value,
        null,
        p_value,
        (float(removed[0, 0]), float(removed[1, 1])),
        (float(removed[0, 1]), float(removed[1, 0])),
        (float(exclusive[0, 0]), float(exclusive[1, 1])),
        (float(exclusive[0, 1]), float(exclusive[1, 0])),
    )


def _double_difference(lost: Float[np.ndarray, "masks tasks"]) -> float:
    return float(min(lost[0, 0] - lost[0, 1], lost[1, 1] - lost[1, 0]))
