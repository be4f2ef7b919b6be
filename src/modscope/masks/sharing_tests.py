"""Would masks, or tasks, that are dealt out anew share as much?"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from modscope.masks.overlap import PairOverlap

_MOST_SPLITS = 10_000  # of the seeds' masks into two tasks, beyond which splits are drawn at random
_MOST_TASKS = 7  # whose functions are dealt out in every way; of more, in random ways
_N_RANDOM = 999


def split_test(pairs: Sequence[PairOverlap], rng: np.random.Generator) -> tuple[float, float]:
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


def function_test(
    functions: Sequence[Hashable], w: Mapping[tuple[int, int], float], rng: np.random.Generator
) -> tuple[float, float]:
    """The p that tasks of one function share as much as these if functions were dealt out at random, and its floor.

    All tasks use one network, so what that favours for any task is in the null too. Every way of dealing out counts
    once; of more than seven tasks 999 random ways are drawn.

    Args:
        functions: What each task computes; some of them twice.
        w: How much the tasks of every two numbers share; the smaller number first.
        rng: Draws the ways where there are too many.
    """
    observed = _pairs_of_one(functions)
    if len(functions) <= _MOST_TASKS:
        ways = {_pairs_of_one(each) for each in itertools.permutations(functions)}
        sums = np.array([_sum(w, pairs) for pairs in ways])
        return int((sums >= _sum(w, observed) - 1e-12).sum()) / len(ways), 1 / len(ways)
    orders: Iterator[Sequence[Hashable]] = (
        [functions[i] for i in rng.permutation(len(functions))] for _ in range(_N_RANDOM)
    )
    sums = np.array([_sum(w, _pairs_of_one(each)) for each in orders])
    return (int((sums >= _sum(w, observed) - 1e-12).sum()) + 1) / (_N_RANDOM + 1), 1 / (_N_RANDOM + 1)


def _pairs_of_one(functions: Sequence[Hashable]) -> frozenset[tuple[int, int]]:
    numbers = itertools.combinations(range(len(functions)), 2)
    return frozenset((i, j) for i, j in numbers if functions[i] == functions[j])


def _sum(w: Mapping[tuple[int, int], float], pairs: frozenset[tuple[int, int]]) -> float:
    return sum(w[pair] for pair in sorted(pairs))
