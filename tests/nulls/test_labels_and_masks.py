"""Do null models of labels and masks keep what they say?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope.errors import StatisticsError
from modscope.nulls import (
    LabelledUnits,
    SizedMask,
    random_masks,
    random_masks_of_equal_sizes,
    shuffle_labels_within_groups,
)


@settings(max_examples=25)
@given(
    labels=st.lists(st.integers(-1, 3), min_size=1, max_size=30),
    seed=st.integers(0, 1000),
)
def test_labels_stay_in_their_group_and_left_out_units_stay_left_out(labels: list[int], seed: int) -> None:
    labels_of = np.array(labels)
    group_of = np.random.default_rng(seed).integers(0, 3, len(labels))
    drawn = shuffle_labels_within_groups(LabelledUnits(labels_of, group_of), seed)
    assert np.array_equal(drawn.labels == -1, labels_of == -1)
    for group in range(3):
        assert np.array_equal(np.sort(drawn.labels[group_of == group]), np.sort(labels_of[group_of == group]))


def test_every_unit_gets_each_label_of_its_group_equally_often() -> None:
    labelled = LabelledUnits(np.array([0, 1, 1, 5, -1, 7]), np.array([0, 0, 0, 1, 0, 1]))
    draws = np.array([shuffle_labels_within_groups(labelled, index).labels for index in range(1500)])
    assert np.abs((draws[:, :3] == 0).mean(axis=0) - 1 / 3).max() < 0.06
    assert np.abs((draws[:, [3, 5]] == 5).mean(axis=0) - 1 / 2).max() < 0.06


@pytest.mark.usefixtures("unchecked_shapes")
def test_labels_and_groups_must_be_one_per_unit() -> None:
    with pytest.raises(StatisticsError, match="one per unit"):
        LabelledUnits(np.zeros(3, dtype=int), np.zeros(4, dtype=int))


def mask_and_weights() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    weights = {"a": torch.randn(20, 30, generator=generator), "b": torch.randn(50, generator=generator)}
    masks = {
        name: weight.abs() + torch.rand(weight.shape, generator=generator) > 1.2 for name, weight in weights.items()
    }
    return masks, weights


def test_random_masks_keep_as_many_weights_of_each_tensor() -> None:
    masks, _ = mask_and_weights()
    drawn = random_masks(masks, 0)
    for name, mask in masks.items():
        assert drawn[name].sum() == mask.sum()
        assert drawn[name].shape == mask.shape
        assert not torch.equal(drawn[name], mask)


def test_masks_of_equal_sizes_keep_as_many_weights_of_each_decile() -> None:
    masks, weights = mask_and_weights()
    drawn = random_masks_of_equal_sizes(SizedMask(masks, weights), 0).mask
    for name, mask in masks.items():
        deciles = weights[name].abs().flatten().argsort().argsort() * 10 // mask.numel()
        for decile in range(10):
            assert drawn[name].flatten()[deciles == decile].sum() == mask.flatten()[deciles == decile].sum()
        assert not torch.equal(drawn[name], mask)
    plain = random_masks(SizedMask(masks, weights), 0).mask["a"]
    assert weights["a"][drawn["a"]].abs().mean() > weights["a"][plain].abs().mean() + 0.1


def test_entries_that_are_not_eligible_stay_as_they_are() -> None:
    masks, weights = mask_and_weights()
    eligible = {"a": torch.zeros(20, 30, dtype=torch.bool)}
    eligible["a"][:10] = True
    for null in (random_masks, random_masks_of_equal_sizes):
        drawn = null(SizedMask(masks, weights, eligible), 0).mask["a"]
        assert torch.equal(drawn[10:], masks["a"][10:])
        assert drawn[:10].sum() == masks["a"][:10].sum()
        assert not torch.equal(drawn[:10], masks["a"][:10])


def test_empty_and_full_masks_are_their_own_nulls() -> None:
    for mask in (torch.zeros(3, 4, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool), torch.zeros(0, 4).bool()):
        assert torch.equal(random_masks({"w": mask}, 0)["w"], mask)
        sized = SizedMask({"w": mask}, {"w": torch.ones(mask.shape)})
        assert torch.equal(random_masks_of_equal_sizes(sized, 0).mask["w"], mask)


def test_masks_that_do_not_fit_are_refused_by_name() -> None:
    mask = {"w": torch.ones(3, 4, dtype=torch.bool)}
    with pytest.raises(StatisticsError, match=r"'w' has shape \(3, 4\), its weight \(4, 3\)"):
        SizedMask(mask, {"w": torch.ones(4, 3)})
    with pytest.raises(StatisticsError, match="'w' has no weight; there are v"):
        SizedMask(mask, {"v": torch.ones(3, 4)})
    with pytest.raises(StatisticsError, match="'w' must be a boolean tensor"):
        random_masks({"w": torch.ones(3)}, 0)
