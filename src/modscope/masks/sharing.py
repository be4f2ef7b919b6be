"""How much do tasks share: p_specialize and p_reuse, with interval and p."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from modscope.masks.overlap import Overlap, PairOverlap
from modscope.tasks.task import Task

_N_RESAMPLES = 2000  # of the seeds, for an interval
_MOST_SPLITS = 10_000  # of the seeds' masks into two tasks, beyond which splits are drawn at random


@dataclass(frozen=True)
class SharingScore:
    """p_specialize or p_reuse: a value with its interval over seeds; None, with the reason, where undefined."""

    value: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    floor: float | None  # the smallest p that the number of seeds allows
    reason: str


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


def same_function(first: Task, second: Task) -> bool:
    """Whether two tasks compute the same thing."""
    return first.function is not None and first.function == second.function


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
