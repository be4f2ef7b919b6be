from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from modscope.masks.mask import Mask, MaskSet
from modscope.masks.overlap import PairOverlap, overlap
from modscope.masks.sharing import SharingScore, interval_over_seeds, mean_w, sharing_score
from modscope.masks.sharing_tests import function_test
from modscope.tasks.task import Task

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


SHAPES = {"0.weight": (24, 12), "2.weight": (6, 24)}


def of_units(units: np.ndarray, rng: np.random.Generator) -> Mask:
    """A run of a task that needs these units: most of their weights in both matrices, and few others."""
    hidden = np.where(units, 0.8, 0.05)
    kept = {"0.weight": rng.random(SHAPES["0.weight"]) < hidden[:, None], "2.weight": rng.random((6, 24)) < hidden}
    return Mask({name: torch.from_numpy(tensor) for name, tensor in kept.items()})


def tasks_of(functions: list[str]) -> list[Task]:
    return [Task(f"t{i}", [0], [0], loss=len, correct=len, function=name) for i, name in enumerate(functions)]  # type: ignore[arg-type, return-value]


def reuse_of(
    units: list[np.ndarray], functions: list[str], rng: np.random.Generator, n_samples: int = 19
) -> SharingScore:
    """p_reuse of tasks that need these units, two seeds each."""
    tasks = tasks_of(functions)
    masks = {task.name: [of_units(needed, rng) for _ in range(2)] for task, needed in zip(tasks, units, strict=True)}
    return sharing_score(overlap(MaskSet(masks), n_unit_samples=n_samples, rng=rng), tasks, {}, rng, reuse=True)


@pytest.mark.parametrize("n_tasks", [2, 3])
def test_tasks_of_independent_units_give_a_p_of_reuse_that_is_uniform(n_tasks: int) -> None:
    rng = np.random.default_rng(n_tasks)
    found = [
        reuse_of([rng.permutation(24) < 9 for _ in range(n_tasks)], ["f"] * n_tasks, rng).p_value for _ in range(120)
    ]
    p_values = np.array(found, dtype=float) - rng.random(120) / 20  # from steps to a continuous uniform
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3
    assert (p_values <= 0.05).mean() < 0.12  # three and a half standard deviations above the level


def test_tasks_of_the_same_units_give_the_smallest_p_of_reuse() -> None:
    rng = np.random.default_rng(0)
    units = rng.permutation(24) < 9
    found = reuse_of([units, units], ["f", "f"], rng, n_samples=99)
    assert found.p_value == found.floor == 1 / 100
    assert found.p_among_tasks is None  # two tasks of one function: there is nothing to deal out


def test_units_that_every_task_uses_count_as_reuse_by_units_and_not_among_tasks() -> None:
    """What the network favours for any task is no sharing of one function."""
    rng = np.random.default_rng(1)
    favoured = np.arange(24) < 8
    found = [
        reuse_of([favoured & (rng.random(24) < 0.8) for _ in range(5)], ["f", "f", "a", "b", "c"], rng)
        for _ in range(30)
    ]
    assert np.mean([score.p_value <= 0.05 for score in found if score.p_value is not None]) > 0.5
    among = np.array([score.p_among_tasks for score in found], dtype=float)
    assert {score.floor_among_tasks for score in found} == {1 / 10}
    assert (among <= 0.1).mean() < 0.25
    assert stats.kstest(among - 0.1 * rng.random(30), "uniform").pvalue > 1e-3


def test_functions_dealt_out_in_every_way_give_the_p_counted_by_hand() -> None:
    w = {(0, 1): 0.9, (0, 2): 0.1, (0, 3): 0.2, (1, 2): 0.3, (1, 3): 0.1, (2, 3): 0.5}
    rng = np.random.default_rng(0)
    assert function_test(["f", "f", "g", "g"], w, rng) == (1 / 3, 1 / 3)  # 1.4 against .2 and .5
    assert function_test(["f", "g", "f", "g"], w, rng) == (3 / 3, 1 / 3)
    assert function_test(["g", "h", "f", "f"], w, rng) == (2 / 6, 1 / 6)  # .5: only the pair 0, 1 has more
    assert function_test(["f"] * 4, w, rng) == (1, 1)


def test_functions_of_many_tasks_are_dealt_out_at_random() -> None:
    rng = np.random.default_rng(0)
    w = {(i, j): float(j - i == 1 and i % 2 == 0) for i in range(10) for j in range(i + 1, 10)}
    p_value, floor = function_test([str(i // 2) for i in range(10)], w, rng)
    assert floor == 1 / 1000
    assert p_value <= 0.006  # one way in 945 is the best one
    assert function_test([str(i % 5) for i in range(10)], w, rng)[0] > 0.5
