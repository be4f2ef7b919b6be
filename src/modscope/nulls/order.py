"""In which random order do a layer's weights come?"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import numpy as np
from jaxtyping import Float, Int

MOST = 2**31 - 1  # items that 32 bits can number
MOST_CLASSES = 16  # of items with like values ...
LEAST_ALIKE = 32  # ... each with so many items or more


def random_order(n: int, rng: np.random.Generator) -> Int[np.ndarray, " items"]:
    """0 .. n - 1 in random order, in 32 bits where they are enough.

    The same generator gives the same order with numba (the extra `fast`) and without, where it takes longer.

    Source: Fisher & Yates 1938, as in Durstenfeld 1964.
    """
    if n > MOST:
        return rng.permutation(n)
    # which of the first i + 1 items changes places with item i; 53 random bits each, so that none is preferred
    partners = (rng.random(n) * np.arange(1, n + 1)).astype(np.int32)
    return _exchanged(partners)


def order_among_alike(values: Float[np.ndarray, " items"], rng: np.random.Generator) -> Int[np.ndarray, " items"]:
    """0 .. n - 1 in random order, where items change places only with items of like value.

    Items are sorted by value and cut into up to `MOST_CLASSES` classes of equal numbers, at least `LEAST_ALIKE` each.
    Any increasing function of the values gives the same orders.
    """
    n = len(values)
    n_classes = min(max(n // LEAST_ALIKE, 1), MOST_CLASSES)
    by_value = np.argsort(values, kind="stable")
    class_of_rank = np.arange(n) * n_classes // max(n, 1)
    order = np.empty(n, dtype=np.int64)
    order[by_value] = by_value[np.lexsort((rng.random(n), class_of_rank))]
    return order


def _exchanged(partners: Int[np.ndarray, " items"]) -> Int[np.ndarray, " items"]:
    """0 .. n - 1 after items i = n - 1 .. 0 have changed places with items partners[i]."""
    if _has_numba():
        from modscope.nulls.order_numba import exchanged

        return exchanged(partners)
    order = list(range(len(partners)))
    for last, partner in zip(range(len(order) - 1, -1, -1), partners[::-1].tolist(), strict=True):
        order[last], order[partner] = order[partner], order[last]
    return np.array(order, dtype=np.int32)


@cache
def _has_numba() -> bool:
    return find_spec("numba") is not None
