"""Are orders as random as they should be, the same with numba and without, and blind to all but ranks?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope.nulls import order
from modscope.nulls.order import LEAST_ALIKE, MOST_CLASSES, order_among_alike, random_order


def test_every_order_is_drawn_equally_often_with_and_without_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = [tuple(random_order(3, np.random.default_rng(index))) for index in range(600)]
    monkeypatch.setattr(order, "_has_numba", lambda: False)
    assert [tuple(random_order(3, np.random.default_rng(index))) for index in range(600)] == compiled
    counts = [compiled.count(one) for one in set(compiled)]
    assert len(counts) == 6
    assert max(abs(count / 600 - 1 / 6) for count in counts) < 0.08


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 300), seed=st.integers(0, 1000))
def test_an_order_has_every_item_once_and_is_that_of_its_seed(n: int, seed: int) -> None:
    drawn = random_order(n, np.random.default_rng(seed))
    assert sorted(drawn.tolist()) == list(range(n))
    assert np.array_equal(drawn, random_order(n, np.random.default_rng(seed)))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(0, 700), seed=st.integers(0, 1000))
def test_items_change_places_with_items_of_like_value_only(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=n)
    drawn = order_among_alike(values, rng)
    assert sorted(drawn.tolist()) == list(range(n))
    n_classes = min(max(n // LEAST_ALIKE, 1), MOST_CLASSES)
    rank = np.argsort(np.argsort(values))
    assert np.abs(rank[drawn] - rank).max(initial=0) < max(np.ceil(n / n_classes), 1)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 200), seed=st.integers(0, 1000), factor=st.floats(0.01, 100), power=st.sampled_from([1, 3, 5]))
def test_orders_know_of_values_no_more_than_their_ranks(n: int, seed: int, factor: float, power: int) -> None:
    values = np.random.default_rng(seed).integers(-9, 9, size=n).astype(np.float64)  # with ties
    there, here = (
        order_among_alike(numbers, np.random.default_rng(seed)) for numbers in (values, factor * values**power + 7)
    )
    assert np.array_equal(there, here)


def test_an_item_comes_to_every_place_of_its_class_equally_often() -> None:
    values = np.arange(2.0 * LEAST_ALIKE)
    counts = np.zeros(len(values))
    for index in range(2000):
        counts[np.flatnonzero(order_among_alike(values, np.random.default_rng(index)) == 0)] += 1
    assert counts[LEAST_ALIKE:].sum() == 0
    chance = 1 / LEAST_ALIKE
    assert np.abs(counts[:LEAST_ALIKE] / 2000 - chance).max() < 4.5 * np.sqrt(chance / 2000)
