from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from modscope.errors import MaskError
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.overlap import overlap


def mask_of(indices: list[int], n: int = 100, strata: list[int] | None = None, seed: int | None = None) -> Mask:
    kept = torch.zeros(n, dtype=torch.bool)
    kept[indices] = True
    known = None if strata is None else {"w": torch.tensor(strata, dtype=torch.uint8)}
    logits = None
    if seed is not None:
        noise = torch.rand(n, generator=torch.Generator().manual_seed(seed)) + 0.1
        logits = {"w": torch.where(kept, noise, -noise)}
    return Mask({"w": kept}, logits, {}, known)


def test_chance_and_p_agree_with_drawing_random_masks() -> None:
    rng = np.random.default_rng(0)
    strata = np.repeat([1, 2, 3], [50, 30, 20])
    counts = {"a": (5, 10, 12), "b": (8, 4, 15)}

    def draw(name: str) -> list[int]:
        chosen = [rng.choice(np.flatnonzero(strata == s + 1), n, replace=False) for s, n in enumerate(counts[name])]
        return sorted(np.concatenate(chosen).tolist())

    first, second = draw("a"), draw("b")
    row = overlap(
        MaskSet({"a": mask_of(first, 100, strata.tolist()), "b": mask_of(second, 100, strata.tolist())})
    ).rows[0]
    observed = len(set(first) & set(second))
    drawn = np.array([len(set(draw("a")) & set(draw("b"))) for _ in range(4000)])
    assert row.overlap == pytest.approx(observed / (54 - observed))
    assert row.p_above == pytest.approx((drawn >= observed).mean(), abs=0.03)
    assert row.p_below == pytest.approx((drawn <= observed).mean(), abs=0.03)
    expected = 5 * 8 / 50 + 10 * 4 / 30 + 12 * 15 / 20
    assert row.chance == pytest.approx(expected / (54 - expected))
    assert drawn.mean() == pytest.approx(expected, abs=0.15)
    overlaps = drawn / (54 - drawn)
    assert (overlaps < row.chance_low).mean() <= 0.035
    assert (overlaps > row.chance_high).mean() <= 0.035
    assert row.chance_low < row.chance < row.chance_high


def test_independent_masks_give_p_values_that_are_uniform() -> None:
    rng = np.random.default_rng(1)
    uniform = []
    for _ in range(300):
        a, b = (rng.choice(200, 60, replace=False).tolist() for _ in range(2))
        row = overlap(MaskSet({"a": mask_of(a, 200), "b": mask_of(b, 200)}), n_unit_samples=0).rows[-1]
        exactly = row.p_above + row.p_below - 1  # probability of just this intersection
        uniform.append(row.p_above - exactly * rng.random())
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3


def noisy(indices: list[int], seed: int) -> Mask:
    """The mask of one run: the indices, two of them exchanged for others."""
    rng = np.random.default_rng(seed)
    others = sorted(set(range(100)) - set(indices))
    kept = set(indices) - set(rng.choice(indices, 2, replace=False).tolist())
    return mask_of(sorted(kept | set(rng.choice(others, 2, replace=False).tolist())), seed=seed)


@pytest.mark.parametrize(
    ("second", "low", "high"),
    [
        (range(40), 0.9, 1.1),  # the same weights
        (range(20, 60), 0.05, 0.45),  # half of them
        (range(50, 90), -0.6, -0.2),  # none of them
        (range(60), 0.9, 1.1),  # the same and more: unequal size is no difference
    ],
)
def test_w_is_one_for_equal_tasks_zero_at_chance_and_negative_for_disjoint_ones(
    second: range, low: float, high: float
) -> None:
    a = [noisy(list(range(40)), seed) for seed in range(3)]
    b = [noisy(list(second), 9 + seed) for seed in range(3)]
    if len(second) > 40:  # what both share has the larger logits, as the more important weights do
        shared = torch.where(torch.arange(100) < 40, 3.0, 0.0)
        larger = [mask.logits["w"] + shared * mask["w"] for mask in b if mask.logits]
        b = [Mask({"w": logits > 0}, {"w": logits}) for logits in larger]
    total = overlap(MaskSet({"a": a, "b": b})).pair("b", "a").total
    assert total.w is not None
    assert low < total.w < high


def test_at_chance_w_is_zero_on_average() -> None:
    rng = np.random.default_rng(3)
    values = []
    for s in range(40):
        a, b = (rng.choice(100, 40, replace=False).tolist() for _ in range(2))
        masks = MaskSet({"a": [noisy(a, s), noisy(a, 100 + s)], "b": [noisy(b, 200 + s), noisy(b, 300 + s)]})
        values.append(overlap(masks).pairs[0].total.w)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values)) + 0.02


def test_weights_that_one_task_does_not_feel_are_left_out() -> None:
    felt_by_a, felt_by_b = [1] * 60 + [0] * 40, [0] * 20 + [1] * 80
    masks = MaskSet(
        {"a": mask_of(list(range(40)), strata=felt_by_a), "b": mask_of(list(range(20, 100)), strata=felt_by_b)}
    )
    row = overlap(masks).rows[-1]
    assert row.n_eligible == 40
    assert row.n_kept == 20


def test_one_seed_gives_no_w_and_says_why() -> None:
    total = overlap(MaskSet({"a": mask_of([1, 2]), "b": mask_of([2, 3])})).pairs[0].total
    assert total.w is None
    assert "n_seeds=2" in total.reason
    assert total.iou == pytest.approx(1 / 3)


def test_empty_masks_and_runs_that_do_not_agree_give_no_w() -> None:
    empty = overlap(MaskSet({"a": mask_of([]), "b": mask_of([2, 3])})).pairs[0].total
    assert "keeps no weight" in empty.reason
    rng = np.random.default_rng(0)
    draws = [mask_of(rng.choice(100, 40, replace=False).tolist()) for _ in range(4)]
    unstable = overlap(MaskSet({"a": draws[:2], "b": draws[2:]})).pairs[0].total
    assert "agree little more than chance" in unstable.reason


def test_one_task_alone_has_no_overlap() -> None:
    with pytest.raises(MaskError, match="at least two tasks"):
        overlap(MaskSet({"a": mask_of([1])}))


def test_the_record_holds_no_nan() -> None:
    import json

    json.dumps(overlap(MaskSet({"a": mask_of([]), "b": mask_of([])})).to_dict(), allow_nan=False)


def half_shared_w(n_large: int) -> float:
    """w of masks of 32 weights with 16 in common, where `n_large` weights are as large as theirs; seeds agree."""
    strata = [2] * n_large + [1] * (2000 - n_large)
    first, second = (mask_of(list(range(start, start + 32)), 2000, strata) for start in (0, 16))
    w = overlap(MaskSet({"a": [first, first], "b": [second, second]}), n_unit_samples=0).rows[-1].w
    assert w is not None
    return w


def test_half_shared_masks_lie_below_chance_if_they_are_all_the_large_weights_and_between_if_not() -> None:
    for n_large in (48, 96, 1000):
        common = 32 * 32 / n_large
        chance = common / (64 - common)
        assert half_shared_w(n_large) == pytest.approx((1 / 3 - chance) / (1 - chance))
    assert half_shared_w(48) < 0 < half_shared_w(96) < half_shared_w(1000) < 1 / 3
