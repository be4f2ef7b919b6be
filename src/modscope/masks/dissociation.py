"""Does removing a mask hurt its own task more than the other?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from modscope.jobs.executors import map_in_order
from modscope.masks.compared import common_strata
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.removal import accuracy_without, random_like
from modscope.randomness import Rng, numbered, seed_of
from modscope.records import Record, plain, record_of
from modscope.tasks.task import Task, evaluate

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes


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

    def __str__(self) -> str:
        return (
            f"without the mask of {self.first}, {self.first} loses {self.own_loss[0]:.2f} and {self.second} "
            f"{self.other_loss[0]:.2f}; without that of {self.second}, {self.own_loss[1]:.2f} and "
            f"{self.other_loss[1]:.2f} (p = {self.p_value:.3f}, {len(self.null_samples)} random removals)"
        )

    def to_frame(self) -> pl.DataFrame:
        """One row per removed mask: accuracy lost on its own and on the other task, all of it and its own part only."""
        import polars as pl

        return pl.DataFrame(
            {
                "removed": (self.first, self.second),
                "own_loss": self.own_loss,
                "other_loss": self.other_loss,
                "exclusive_own_loss": self.exclusive_own_loss,
                "exclusive_other_loss": self.exclusive_other_loss,
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values."""
        return {**plain(self), "floor": self.floor}

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("dissociation", self.to_dict())

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())

    def plot(self, ax: Axes | None = None) -> Axes:
        """The smaller of the two differences (own loss - other's loss), among those of random removals."""
        import matplotlib.pyplot as plt

        axes = plt.subplots()[1] if ax is None else ax
        axes.hist(self.null_samples, bins=20, color="0.7", label="as many random weights removed")
        axes.axvline(self.observed, color="C0", linewidth=2, label=f"the masks (p = {self.p_value:.3f})")
        axes.set_xlabel("accuracy lost: own task - other task, smaller of the two")
        axes.set_ylabel("samples")
        axes.set_title(f"{self.first} / {self.second}", fontsize=10)
        axes.legend()
        return axes


def dissociation(
    model: nn.Module,
    mask_set: MaskSet,
    pair: tuple[Task, Task],
    n_samples: int,
    rng: Rng,
    *,
    executor: Executor | None = None,
) -> Dissociation:
    """What two tasks lose without the weights of either mask, against as many random removals as `n_samples`.

    Each removal has a random stream of its own, so the result does not depend on the executor, where they are done.
    """
    masks = [mask_set[task.name] for task in pair]
    whole = np.array([evaluate(model, task).accuracy for task in pair])
    strata = common_strata(masks)
    both_feel = Mask({name: stratum > 0 for name, stratum in strata.items()})
    tested = [mask & both_feel for mask in masks]
    removed = _lost(model, pair, whole, masks)
    exclusive = _lost(model, pair, whole, [masks[0] - masks[1], masks[1] - masks[0]])
    lighter = (pair[0].for_tests(), pair[1].for_tests())
    draw = partial(_random_difference, model, lighter, whole, tested, strata, seed_of(rng))
    description = f"random removals, {pair[0].name} and {pair[1].name}"
    null = map_in_order(draw, range(n_samples), executor=executor, description=description, runs_a_model=True)
    value = _double_difference(_lost(model, pair, whole, tested))
    # ties count against us (Phipson & Smyth 2010)
    p_value = (sum(sample >= value for sample in null) + 1) / (n_samples + 1)
    return Dissociation(
        pair[0].name,
        pair[1].name,
        value,
        tuple(null),
        p_value,
        (float(removed[0, 0]), float(removed[1, 1])),
        (float(removed[0, 1]), float(removed[1, 0])),
        (float(exclusive[0, 0]), float(exclusive[1, 1])),
        (float(exclusive[0, 1]), float(exclusive[1, 0])),
    )


def _random_difference(
    model: nn.Module,
    pair: tuple[Task, Task],
    whole: Float[np.ndarray, " tasks"],
    masks: Sequence[Mask],
    strata: Mapping[str, Tensor],
    seed: int,
    index: int,
) -> float:
    """The double difference of removal `index` of as many random weights as the masks have."""
    rng = numbered(seed, f"random removals, {pair[0].name} and {pair[1].name}", index)
    return _double_difference(_lost(model, pair, whole, [random_like(mask, strata, rng) for mask in masks]))


def _lost(
    model: nn.Module, pair: tuple[Task, Task], whole: Float[np.ndarray, " tasks"], removed: Sequence[Mask]
) -> Float[np.ndarray, "masks tasks"]:
    """Accuracy that each task loses without the weights of each mask."""
    return np.stack([whole - accuracy_without(model, mask, pair) for mask in removed])


def _double_difference(lost: Float[np.ndarray, "masks tasks"]) -> float:
    return float(min(lost[0, 0] - lost[0, 1], lost[1, 1] - lost[1, 0]))
