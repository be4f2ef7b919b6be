from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from masks import planted_tasks
from modscope.errors import MaskError
from modscope.masks.layout import Granularity, LogitPerGroup, layout_of
from modscope.masks.learner import MaskLearner
from modscope.masks.parameters import chosen_parameters
from modscope.masks.random_groups import RandomGroups, shuffled_labels
from modscope.models.transformer import AlgorithmicTransformer, TransformerShape
from modscope.partition.partition import Partition
from modscope.wiring.trace import read_wiring


def layouts(granularity: Granularity, seed: int = 0) -> tuple[LogitPerGroup, LogitPerGroup]:
    """Of the real groups, and of random ones like them, in a small transformer."""
    torch.manual_seed(0)
    shape = TransformerShape(7, 5, 3, n_blocks=2, width=8, n_heads=2, width_mlp=12, is_causal=True)
    model = AlgorithmicTransformer(shape)
    wiring = read_wiring(model, torch.randint(7, (2, 5)))
    if isinstance(granularity, str) and granularity == "partition":
        granularity = Partition(np.random.default_rng(0).integers(-1, 4, wiring.n_units))
    chosen = chosen_parameters(model, "weights")
    real, random = (layout_of(each, chosen, wiring) for each in (granularity, RandomGroups(granularity, seed)))
    assert isinstance(real, LogitPerGroup)
    assert isinstance(random, LogitPerGroup)
    return real, random


def pairs(layout: LogitPerGroup, name: str) -> list[tuple[int, ...]]:
    """Of each weight of a tensor, the groups that it is in."""
    arrays = [groups.expand(layout.shapes[name]).reshape(-1).tolist() for groups in layout.factors[name]]
    return list(zip(*arrays, strict=True))


@pytest.mark.parametrize("granularity", ["row", "column", "unit"])
def test_random_groups_of_weights_have_as_many_weights_in_every_tensor(granularity: str) -> None:
    real, random = layouts(granularity)
    assert real.n_groups == random.n_groups
    for name in real.shapes:
        assert sorted(pairs(real, name)) == sorted(pairs(random, name))
        assert pairs(real, name) != pairs(random, name)


@pytest.mark.parametrize("granularity", ["head", "layer", "block", "partition"])
def test_random_groups_of_units_have_as_many_units(granularity: str) -> None:
    real, random = layouts(granularity)
    assert real.n_groups == random.n_groups
    assert any(pairs(real, name) != pairs(random, name) for name in real.shapes)


def test_what_is_sampled_while_learning_is_shuffled_along() -> None:
    _, random = layouts("unit")
    for name in random.shapes:
        whole = [groups.reshape(-1) for groups in random.factors[name]]
        for learned in random.learning[name]:
            sampled = learned.reshape(-1)
            fits = [bool((sampled[sampled >= 0] == groups[sampled >= 0]).all()) for groups in whole]
            assert any(fits)


@settings(deadline=None, max_examples=30)
@given(
    labels=st.lists(st.integers(-1, 3), min_size=2, max_size=30),
    n_groups=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_labels_are_dealt_anew_within_groups_and_left_out_units_stay_out(
    labels: list[int], n_groups: int, seed: int
) -> None:
    before = np.array(labels)
    group_of = np.arange(len(labels)) % n_groups
    after = shuffled_labels(before, group_of, np.random.default_rng(seed))
    assert sorted(after) == sorted(before)
    assert ((after < 0) == (before < 0)).all()
    several = any(len(set(before[(group_of == group) & (before >= 0)])) > 1 for group in range(n_groups))
    if several:
        for group in range(n_groups):
            assert sorted(after[group_of == group]) == sorted(before[group_of == group])


def test_the_seed_alone_decides_about_the_groups() -> None:
    first, again, other = (layouts("row", seed)[1] for seed in (1, 1, 2))
    name = next(iter(first.shapes))
    assert pairs(first, name) == pairs(again, name)
    assert pairs(first, name) != pairs(other, name)


def test_single_weights_and_unknown_names_are_refused() -> None:
    with pytest.raises(MaskError, match="single weights have no grouping"):
        RandomGroups("weight")
    with pytest.raises(MaskError, match="granularity must be one of"):
        RandomGroups("colum")


def test_masks_over_whole_units_find_a_planted_task_that_random_groups_miss() -> None:
    model = planted_tasks.network([range(8), range(8, 16)])
    tasks = planted_tasks.tasks(model, 2)
    needed = planted_tasks.needed(model, 0)
    share = []
    for granularity in ("row", RandomGroups("row")):
        mask = MaskLearner(granularity=granularity, penalty=0.5)(model, tasks[0])
        share.append((mask & needed).n_kept / mask.n_kept)
    assert share[0] > 1.5 * share[1]
