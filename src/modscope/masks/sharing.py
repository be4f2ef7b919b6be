"""How much do tasks share: p_specialize and p_reuse, and how far would further seeds move them?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from modscope.masks.overlap import Overlap, PairOverlap
from modscope.masks.sharing_tests import function_test, split_test
from modscope.masks.unit_chance import UnitChance
from modscope.tasks.task import Task


@dataclass(frozen=True)
class SharingScore:
    """p_specialize or p_reuse: a value with its interval over seeds; None, with the reason, where undefined.

    `p_value` of p_specialize: that masks of one task would overlap as little as those of the two tasks do. Of p_reuse:
    that masks of these sizes, with the units of one in random places, would share as much; every network favours some
    of its units for any task, and that counts as sharing here. `p_among_tasks` knows better, but needs other tasks.
    """

    value: float | None
    interval: tuple[float, float] | None  # 95 %, of what many more seeds on this network would give
    p_value: float | None
    floor: float | None  # the smallest p_value that the number of seeds, or of samples, allows
    reason: str
    p_among_tasks: float | None = None  # that tasks share as much if their functions were dealt out anew; of p_reuse
    floor_among_tasks: float | None = None

    def __str__(self) -> str:
        if self.value is None or self.interval is None:
            return f"undefined: {self.reason}"
        return f"{self.value:.2f} (95 % interval {self.interval[0]:.2f} to {self.interval[1]:.2f})"

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values; None where undefined."""
        return {**asdict(self), "interval": None if self.interval is None else list(self.interval)}


def sharing_score(
    shared: Overlap | None, tasks: Sequence[Task], failed: Mapping[str, str], rng: np.random.Generator, *, reuse: bool
) -> SharingScore:
    """p_reuse over the pairs of one function, or p_specialize over the others; tasks in `failed` count for nothing."""
    function = "one function" if reuse else "different function"
    pairs = [pair for pair in itertools.combinations(tasks, 2) if same_function(*pair) == reuse]
    if shared is None or not pairs:
        return SharingScore(None, None, None, None, f"no two tasks of {function}")
    overlaps, reasons = [], []
    for first, second in pairs:
        pair = shared.pair(first.name, second.name)
        reason = failed.get(first.name) or failed.get(second.name) or pair.total.reason
        if reason:
            reasons.append(f"{first.name} and {second.name}: {reason}")
        else:
            overlaps.append(pair)
    if not overlaps:
        return SharingScore(None, None, None, None, "; ".join(reasons))
    value, (low, high) = mean_w(overlaps), interval_over_seeds(overlaps)
    if not reuse:
        p_value, floor = split_test(overlaps, rng)
        return SharingScore(1 - value, (1 - high, 1 - low), p_value, floor, "")
    usable = [task for task in tasks if task.name not in failed]
    by_units, floor_of_units = _unit_test(overlaps)
    among_tasks, floor_of_tasks = _function_test(shared, usable, rng)
    return SharingScore(value, (low, high), by_units, floor_of_units, "", among_tasks, floor_of_tasks)


def _unit_test(pairs: Sequence[PairOverlap]) -> tuple[float, float] | tuple[None, None]:
    """The p that as much is shared with units in random places, and the smallest such p.

    Pairs that have a task in common are taken as independent: under the null they are so in mean and variance.
    """
    chances = [pair.by_units for pair in pairs if pair.by_units is not None]
    if len(chances) < len(pairs):
        return None, None
    together = UnitChance.together(chances, [pair.total.n_kept for pair in pairs])
    return together.p_above, 1 / (len(together.samples) + 1)


def _function_test(
    shared: Overlap, tasks: Sequence[Task], rng: np.random.Generator
) -> tuple[float, float] | tuple[None, None]:
    """`function_test` on the pairs of these tasks; None where one pair has no w, or all are of one function."""
    w: dict[tuple[int, int], float] = {}
    for (i, first), (j, second) in itertools.combinations(enumerate(tasks), 2):
        of_pair = shared.pair(first.name, second.name).total.w
        if of_pair is None:
            return None, None
        w[i, j] = of_pair
    functions = [task.name if task.function is None else ("of several", task.function) for task in tasks]
    p_value, floor = function_test(functions, w, rng)
    return (p_value, floor) if floor < 1 else (None, None)


def same_function(first: Task, second: Task) -> bool:
    """Whether two tasks compute the same thing."""
    return first.function is not None and first.function == second.function


def mean_w(pairs: Sequence[PairOverlap], left_out: tuple[str, int] | None = None) -> float:
    """Mean over the pairs of (overlap - chance) / (ceiling - chance).

    Args:
        pairs: Pairs with at least two seeds a task.
        left_out: A task and the number of a seed whose mask does not count.
    """
    return float(np.mean([_w(pair, left_out) for pair in pairs]))


def interval_over_seeds(pairs: Sequence[PairOverlap], *, level: float = 0.95) -> tuple[float, float]:
    """Where the mean w over ever more seeds lies with chance `level`: same network, masks cut to the same size.

    The jackknife leaves out one mask of one task at a time; each task's variance has (seeds - 1) degrees of freedom,
    and Student's t with those of the sum (Satterthwaite) makes the interval wide where there are few. Leaving out one
    of two seeds leaves no agreement between seeds: then the ceiling is held, and its variance is taken from how the
    seeds differ in their overlap with the other task. The standard error is never below what one weight more or less in
    one of the masks would make of the mean.

    Source: Arvesen 1969 (jackknife of functions of several samples); Satterthwaite 1946.
    """
    from scipy.special import stdtrit

    n_seeds = {task: n for pair in pairs for task, n in pair.n_seeds.items()}
    variances = np.array([_variance_over_seeds(pairs, task, n) for task, n in n_seeds.items()])
    freedom = np.array(list(n_seeds.values())) - 1
    one_weight = float(np.mean([1 / (pair.total.n_kept * _range_of(pair)) for pair in pairs])) / min(n_seeds.values())
    total = float(variances.sum())
    if total > one_weight**2:
        half = float(stdtrit(total**2 / (variances**2 / freedom).sum(), (1 + level) / 2)) * np.sqrt(total)
    else:
        half = float(stdtrit(freedom.sum(), (1 + level) / 2)) * one_weight
    value = mean_w(pairs)
    return value - half, value + half


def _variance_over_seeds(pairs: Sequence[PairOverlap], task: str, n_seeds: int) -> float:
    without = np.array([mean_w(pairs, (task, seed)) for seed in range(n_seeds)])
    variance = (n_seeds - 1) / n_seeds * float(((without - without.mean()) ** 2).sum())
    return variance if n_seeds > 2 else variance + _variance_of_held_ceiling(pairs, task)


def _variance_of_held_ceiling(pairs: Sequence[PairOverlap], task: str) -> float:
    """How far the agreement of one pair of seeds moves mean w: as if seeds moved it as they move the overlap."""
    own = [pair for pair in pairs if task in pair.n_seeds]
    by_seed = [pair.overlap.mean(axis=1 if task == pair.first else 0) for pair in own]
    slopes = [_w(pair, None) / _range_of(pair) / 2 for pair in own]  # the ceiling is a geometric mean of two
    moved = np.sum([slope * overlap for slope, overlap in zip(slopes, by_seed, strict=True)], axis=0) / len(pairs)
    return 2 * float(moved.var(ddof=1))


def _w(pair: PairOverlap, left_out: tuple[str, int] | None) -> float:
    first, second = _seeds(pair, left_out)
    cross, chance = pair.within[np.ix_(first, second)], pair.chance[np.ix_(first, second)]
    ceiling = np.sqrt(_agreement(pair, first) * _agreement(pair, second))
    return float(((cross - chance) / (ceiling - chance)).mean())


def _seeds(pair: PairOverlap, left_out: tuple[str, int] | None) -> list[Int[np.ndarray, " _seeds"]]:
    """Rows of `within` of either task's masks, without the one left out."""
    n_first = len(pair.overlap)
    rows = np.arange(n_first), np.arange(n_first, len(pair.within))
    task, seed = left_out or ("", -1)
    return [
        np.delete(row, seed) if name == task else row for name, row in zip((pair.first, pair.second), rows, strict=True)
    ]


def _agreement(pair: PairOverlap, seeds: Int[np.ndarray, " seeds"]) -> float:
    """Mean overlap of every two masks of one task; of both its masks if only one is left."""
    if len(seeds) < 2:
        is_first = seeds[0] < len(pair.overlap)
        seeds = np.arange(len(pair.overlap)) if is_first else np.arange(len(pair.overlap), len(pair.within))
    block = pair.within[np.ix_(seeds, seeds)]
    return float(block[np.triu_indices(len(block), 1)].mean())


def _range_of(pair: PairOverlap) -> float:
    """Ceiling - chance."""
    first, second = _seeds(pair, None)
    ceiling = np.sqrt(_agreement(pair, first) * _agreement(pair, second))
    return float(ceiling - pair.chance[np.ix_(first, second)].mean())
