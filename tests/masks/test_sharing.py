from __future__ import annotations

import numpy as np
import pytest
import torch

from modscope.masks.mask import Mask, MaskSet
from modscope.masks.overlap import PairOverlap, overlap
from modscope.masks.sharing import interval_over_seeds, mean_w

N_WEIGHTS = 200


def run_of(weights: range, rng: np.random.Generator) -> Mask:
    """What one run of mask learning finds: each weight of the task with chance .9, and as many others by mistake."""
    kept = np.zeros(N_WEIGHTS, dtype=bool)
    kept[list(weights)] = rng.random(len(weights)) < 0.9
    others = np.setdiff1d(np.arange(N_WEIGHTS), np.flatnonzero(kept))
    kept[rng.choice(others, len(weights) - kept.sum(), replace=False)] = True
    return Mask({"w": torch.from_numpy(kept)})


def pair_of(first: range, second: range, n_seeds: int, rng: np.random.Generator) -> PairOverlap:
    masks = {name: [run_of(weights, rng) for _ in range(n_seeds)] for name, weights in (("a", first), ("b", second))}
    return overlap(MaskSet(masks), n_unit_samples=0, rng=rng).pairs[0]


@pytest.mark.parametrize("n_seeds", [2, 3, 4])
@pytest.mark.parametrize("second", [range(60), range(30, 90), range(60, 120)])
def test_the_interval_holds_the_value_of_many_seeds(second: range, n_seeds: int) -> None:
    """At the level: at most 8 misses of 60 have chance .005 where the true coverage is .95."""
    rng = np.random.default_rng([n_seeds, second.start])
    truth = mean_w([pair_of(range(60), second, 60, rng)])
    intervals = [interval_over_seeds([pair_of(range(60), second, n_seeds, rng)]) for _ in range(60)]
    assert sum(not low <= truth <= high for low, high in intervals) <= 8


def test_more_seeds_give_a_narrower_interval() -> None:
    rng = np.random.default_rng(0)
    width = {
        n_seeds: np.median(
            [np.ptp(interval_over_seeds([pair_of(range(60), range(30, 90), n_seeds, rng)])) for _ in range(20)]
        )
        for n_seeds in (2, 4, 8)
    }
    assert width[2] > 1.5 * width[4]
    assert width[4] > 1.2 * width[8]


def test_equal_seeds_still_give_an_interval_one_weight_wide() -> None:
    kept = torch.arange(N_WEIGHTS) < 50
    masks = MaskSet({"a": [Mask({"w": kept})] * 2, "b": [Mask({"w": kept.roll(25)})] * 2})
    low, high = interval_over_seeds(overlap(masks).pairs)
    assert 1 / 100 < high - low < 0.3


def test_the_mean_w_of_a_pair_is_the_one_in_its_table() -> None:
    pair = pair_of(range(60), range(30, 90), 3, np.random.default_rng(0))
    assert mean_w([pair]) == pytest.approx(pair.total.w)
