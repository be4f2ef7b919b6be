"""Does every task have weights of its own, and do tasks of one function share theirs?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import nn

from modscope.calling import check_model
from modscope.errors import MaskError
from modscope.masks.applied import applied
from modscope.masks.dissociation import Dissociation, dissociation
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.overlap import Overlap, overlap
from modscope.masks.sharing import SharingScore, same_function, sharing_score
from modscope.progress import track
from modscope.randomness import Rng, generator, seed_of
from modscope.records import Record, record_of
from modscope.tasks.task import Task, as_tasks, evaluate

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Specialization:
    """Accuracy of every mask and inverse mask on every task, and what they say together. Means over seeds."""

    tasks: tuple[str, ...]
    whole_accuracy: Float[np.ndarray, " tasks"]  # of the whole network
    mask_accuracy: Float[np.ndarray, "masks tasks"]  # only the mask's weights
    inverse_accuracy: Float[np.ndarray, "masks tasks"]  # all but the mask's weights
    density: Float[np.ndarray, " masks"]
    overlap: Overlap | None
    dissociations: tuple[Dissociation, ...]
    specialize: SharingScore
    reuse: SharingScore

    @property
    def p_specialize(self) -> float | None:
        """1 - mean w over pairs of different function: 0 they share as two runs of one task do, 1 as chance does."""
        return self.specialize.value

    @property
    def p_reuse(self) -> float | None:
        """Mean w over pairs of one function: 1 they share as much as two runs of one task do, 0 as chance does."""
        return self.reuse.value

    @property
    def reasons(self) -> dict[str, str]:
        """Why a score is None, by its name."""
        scores = {"p_specialize": self.specialize, "p_reuse": self.reuse}
        return {name: score.reason for name, score in scores.items() if score.reason}

    def __str__(self) -> str:
        lines = [f"p_specialize {self.specialize}", f"p_reuse {self.reuse}", *map(str, self.dissociations)]
        return "\n".join(lines)

    def to_frame(self) -> pl.DataFrame:
        """One row per mask and task: accuracy whole, with the mask, with its inverse."""
        import polars as pl

        rows = [
            {
                "mask": mask,
                "task": task,
                "density": float(self.density[i]),
                "whole_accuracy": float(self.whole_accuracy[j]),
                "mask_accuracy": float(self.mask_accuracy[i, j]),
                "inverse_accuracy": float(self.inverse_accuracy[i, j]),
            }
            for i, mask in enumerate(self.tasks)
            for j, task in enumerate(self.tasks)
        ]
        return pl.DataFrame(rows)

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values; None where undefined."""
        return {
            "tasks": list(self.tasks),
            "whole_accuracy": self.whole_accuracy.tolist(),
            "mask_accuracy": self.mask_accuracy.tolist(),
            "inverse_accuracy": self.inverse_accuracy.tolist(),
            "density": self.density.tolist(),
            "overlap": None if self.overlap is None else self.overlap.to_dict(),
            "dissociations": [each.to_dict() for each in self.dissociations],
            "p_specialize": self.specialize.to_dict(),
            "p_reuse": self.reuse.to_dict(),
        }

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("specialization", self.to_dict())

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())

    def plot(self, ax: Axes | None = None) -> Axes:
        """Accuracy of every mask (upper half) and inverse mask (lower half) on every task."""
        import matplotlib.pyplot as plt

        axes = plt.subplots()[1] if ax is None else ax
        table = np.concatenate([self.mask_accuracy, self.inverse_accuracy])
        axes.imshow(table, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="w" if value < 0.6 else "k")
        axes.set_xticks(range(len(self.tasks)), self.tasks)
        axes.set_yticks(range(len(table)), [*self.tasks, *(f"all but {name}" for name in self.tasks)])
        axes.set_xlabel("accuracy on task")
        axes.set_ylabel("weights kept: mask of task")
        return axes


def specialization(
    model: nn.Module,
    mask_set: MaskSet,
    tasks: Task | Sequence[Task],
    *,
    n_samples: int | None = None,
    failed: Mapping[str, str] | None = None,
    rng: Rng = 0,
    executor: Executor | None = None,
) -> Specialization:
    """What every mask and inverse mask can do, and whether tasks have weights of their own.

    Args:
        model: The network that the masks were learned on.
        mask_set: Masks of at least these tasks; two seeds of each for p_specialize and p_reuse.
        tasks: The tasks; those of one `function` are pairs for reuse, all others for specialisation.
        n_samples: Random removals per pair; None takes the fewest that let one finding survive a correction.
        failed: Tasks whose masks failed a control, with the reason: their pairs count for no score.
        rng: Seed or generator of the random removals.
        executor: Where the random removals are done; None: here. Results do not depend on it.

    Raises:
        MaskError: If a task has no mask, or the masks do not fit the model.
    """
    model = check_model(model)
    several = as_tasks(tasks)
    missing = [task.name for task in several if task.name not in mask_set]
    if missing:
        raise MaskError(f"no mask of task {', '.join(missing)}; there are masks of {', '.join(mask_set)}")
    seed = seed_of(rng)
    rng = generator(seed)
    names = tuple(task.name for task in several)
    chosen = MaskSet({name: mask_set.seeds(name) for name in names})
    whole = np.array([evaluate(model, task).accuracy for task in several])
    kept = _accuracies(model, chosen, several, lambda mask: mask, "accuracy of masks")
    inverse = _accuracies(model, chosen, several, lambda mask: ~mask, "accuracy of inverse masks")
    shared = overlap(chosen, rng=rng) if len(several) > 1 else None
    failures = {**_empty_masks(chosen), **(failed or {})}
    pairs = [pair for pair in itertools.combinations(several, 2) if not same_function(*pair)]
    samples = max(20 * len(pairs) - 1, 19) if n_samples is None else n_samples
    return Specialization(
        names,
        whole,
        kept.mean(axis=1),
        inverse.mean(axis=1),
        np.array([np.mean([mask.density for mask in chosen.seeds(name)]) for name in names]),
        shared,
        tuple(dissociation(model, chosen, pair, samples, seed, executor=executor) for pair in pairs),
        sharing_score(shared, several, failures, rng, reuse=False),
        sharing_score(shared, several, failures, rng, reuse=True),
    )


def _accuracies(
    model: nn.Module, mask_set: MaskSet, tasks: Sequence[Task], of: Callable[[Mask], Mask], description: str
) -> Float[np.ndarray, "masks seeds tasks"]:
    n_seeds = mask_set.n_seeds
    table = np.empty((len(tasks), n_seeds, len(tasks)))
    jobs = [(row, seed) for row in range(len(tasks)) for seed in range(n_seeds)]
    for row, seed in track(jobs, description):
        with applied(model, of(mask_set.seeds(tasks[row].name)[seed])):
            table[row, seed] = [evaluate(model, task).accuracy for task in tasks]
    return table


def _empty_masks(mask_set: MaskSet) -> dict[str, str]:
    return {
        name: f"the mask of {name} is empty"
        for name in mask_set
        if any(mask.n_kept == 0 for mask in mask_set.seeds(name))
    }
