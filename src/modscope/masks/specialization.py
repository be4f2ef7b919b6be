"""Does every task have weights of its own, and do tasks of one function share theirs?"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from modscope.calling import check_model
from modscope.errors import MaskError
from modscope.masks.applied import applied
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.overlap import Overlap, PairOverlap, common_strata, overlap
from modscope.progress import track
from modscope.randomness import Rng, generator
from modscope.records import Record, record_of
from modscope.tasks.task import Task, as_tasks, evaluate

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

_N_RESAMPLES = 2000  # of the seeds, for an interval
_MOST_SPLITS = 10_000  # of the seeds' masks into two tasks, beyond which splits are drawn at random


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


@dataclass(frozen=True)
class SharingScore:
    """p_specialize or p_reuse: a value with its interval over seeds; None, with the reason, where undefined."""

    value: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    floor: float | None  # the smallest p that the number of seeds allows
    reason: str


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
            "dissociations": [_plain_dissociation(each) for each in self.dissociations],
            "p_specialize": _plain_score(self.specialize),
            "p_reuse": _plain_score(self.reuse),
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
) -> Specialization:
    """What every mask and inverse mask can do, and whether tasks have weights of their own.

    Args:
        model: The network that the masks were learned on.
        mask_set: Masks of at least these tasks; two seeds of each for p_specialize and p_reuse.
        tasks: The tasks; those of one `function` are pairs for reuse, all others for specialisation.
        n_samples: Random removals per pair; None takes the fewest that let one finding survive a correction.
        failed: Tasks whose masks failed a control, with the reason: their pairs count for no score.
        rng: Seed or generator of the random removals.

    Raises:
        MaskError: If a task has no mask, or the masks do not fit the model.
    """
    model = check_model(model)
    several = as_tasks(tasks)
    missing = [task.name for task in several if task.name not in mask_set]
    if missing:
        raise MaskError(f"no mask of task {', '.join(missing)}; there are masks of {', '.join(mask_set)}")
    rng = generator(rng)
    names = tuple(task.name for task in several)
    chosen = MaskSet({name: mask_set.seeds(name) for name in names})
    whole = np.array([evaluate(model, task).accuracy for task in several])
    kept = _accuracies(model, chosen, several, lambda mask: mask, "accuracy of masks")
    inverse = _accuracies(model, chosen, several, lambda mask: ~mask, "accuracy of inverse masks")
    shared = overlap(chosen, rng=rng) if len(several) > 1 else None
    failures = {**_empty_masks(chosen), **(failed or {})}
    pairs = [pair for pair in itertools.combinations(several, 2) if not _same_function(*pair)]
    samples = max(20 * len(pairs) - 1, 19) if n_samples is None else n_samples
    return Specialization(
        names,
        whole,
        kept.mean(axis=1),
        inverse.mean(axis=1),
        np.array([np.mean([mask.density for mask in chosen.seeds(name)]) for name in names]),
        shared,
        tuple(_dissociation(model, chosen, pair, samples, rng) for pair in pairs),
        _score(shared, several, failures, rng, reuse=False),
        _score(shared, several, failures, rng, reuse=True),
    )


def random_like(mask: Mask, strata: Mapping[str, Tensor], rng: np.random.Generator) -> Mask:
    """As many random weights as the mask keeps in each stratum of each tensor; stratum 0 is left out."""
    drawn = {}
    for name, kept in mask.kept.items():
        flat_strata = strata[name].cpu().reshape(-1).numpy()
        flat_kept = kept.cpu().reshape(-1).numpy()
        flat = np.zeros(len(flat_kept), dtype=bool)
        for stratum in np.unique(flat_strata[flat_strata > 0]):
            members = np.flatnonzero(flat_strata == stratum)
            flat[rng.choice(members, size=int(flat_kept[members].sum()), replace=False)] = True
        drawn[name] = torch.from_numpy(flat).view(kept.shape)
    return Mask(drawn)


def accuracy_without(model: nn.Module, removed: Mask, tasks: Sequence[Task]) -> Float[np.ndarray, " tasks"]:
    """Accuracy on every task with the weights of one mask removed."""
    with applied(model, ~removed):
        return np.array([evaluate(model, task).accuracy for task in tasks])


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


def _dissociation(
    model: nn.Module, mask_set: MaskSet, pair: tuple[Task, Task], n_samples: int, rng: np.random.Generator
) -> Dissociation:
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


def _score(
    shared: Overlap | None, tasks: Sequence[Task], failed: Mapping[str, str], rng: np.random.Generator, *, reuse: bool
) -> SharingScore:
    function = "one function" if reuse else "different function"
    pairs = [pair for pair in itertools.combinations(tasks, 2) if _same_function(*pair) == reuse]
    if shared is None or not pairs:
        return SharingScore(None, None, None, None, f"no two tasks of {function}")
    overlaps, reasons = [], []
    for first, second in pairs:
        pair = shared.pair(first.name, second.name)
        reason = failed.get(first.name) or failed.get(second.name) or pair.total.reason
        if reason:
            reasons.append(f"{first.name} and {second.name}: {reason}")
        elif pair.w is not None:
            overlaps.append(pair)
    if not overlaps:
        return SharingScore(None, None, None, None, "; ".join(reasons))
    values = [_mean_w(pair.w for pair in overlaps)]
    resampled = [_mean_w(_resampled(pair.w, rng) for pair in overlaps) for _ in range(_N_RESAMPLES)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    p_value, floor = _split_test(overlaps, rng)
    if reuse:
        return SharingScore(values[0], (float(low), float(high)), p_value, floor, "")
    return SharingScore(1 - values[0], (float(1 - high), float(1 - low)), p_value, floor, "")


def _mean_w(matrices: Any) -> float:
    return float(np.mean([matrix.mean() for matrix in matrices]))


def _resampled(w: Any, rng: np.random.Generator) -> Float[np.ndarray, "first_seeds second_seeds"]:
    rows = rng.integers(w.shape[0], size=w.shape[0])
    columns = rng.integers(w.shape[1], size=w.shape[1])
    resampled: np.ndarray = w[np.ix_(rows, columns)]
    return resampled


def _split_test(pairs: Sequence[PairOverlap], rng: np.random.Generator) -> tuple[float, float]:
    """The p that masks of two tasks overlap as little as these if the task did not matter, and the smallest such p.

    The seeds' masks of a pair are dealt out anew to its two tasks: all splits, or random ones if there are too many.
    """
    per_pair = [_split_statistics(pair, rng) for pair in pairs]
    n_splits = min(len(statistics) for statistics in per_pair)
    total = np.sum([statistics[:n_splits] for statistics in per_pair], axis=0)
    at_most = int((total <= total[0] + 1e-12).sum())  # the first split is the observed one, so p is never 0
    return at_most / n_splits, 1 / n_splits


def _split_statistics(pair: PairOverlap, rng: np.random.Generator) -> Float[np.ndarray, " splits"]:
    """Mean overlap across the two halves of each split; the observed split first, the others in random order."""
    n_masks, n_first = len(pair.within), pair.overlap.shape[0]
    halves = itertools.islice(itertools.combinations(range(n_masks), n_first), _MOST_SPLITS)
    is_even = n_first * 2 == n_masks
    splits = [half for half in halves if not is_even or half[0] == 0]  # a split and its mirror image are one
    order = [0, *(1 + rng.permutation(len(splits) - 1))]
    everything = set(range(n_masks))
    return np.array([pair.within[np.ix_(splits[i], sorted(everything - set(splits[i])))].mean() for i in order])


def _same_function(first: Task, second: Task) -> bool:
    return first.function is not None and first.function == second.function


def _empty_masks(mask_set: MaskSet) -> dict[str, str]:
    return {
        name: f"the mask of {name} is empty"
        for name in mask_set
        if any(mask.n_kept == 0 for mask in mask_set.seeds(name))
    }


def _plain_score(score: SharingScore) -> dict[str, Any]:
    return {
        "value": score.value,
        "interval": None if score.interval is None else list(score.interval),
        "p_value": score.p_value,
        "floor": score.floor,
        "reason": score.reason,
    }


def _plain_dissociation(each: Dissociation) -> dict[str, Any]:
    return {
        "first": each.first,
        "second": each.second,
        "observed": each.observed,
        "null_samples": list(each.null_samples),
        "p_value": each.p_value,
        "floor": each.floor,
        "own_loss": list(each.own_loss),
        "other_loss": list(each.other_loss),
        "exclusive_own_loss": list(each.exclusive_own_loss),
        "exclusive_other_loss": list(each.exclusive_other_loss),
    }
