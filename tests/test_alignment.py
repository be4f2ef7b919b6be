"""Alignment finds masks that follow clusters, and nothing where masks and clusters are independent."""

from __future__ import annotations

import json
import math

import matplotlib as mpl
import numpy as np
import pytest
import torch
from scipy.stats import kstest
from torch import Tensor

from modscope.alignment import alignment
from modscope.errors import MaskError, PartitionError
from modscope.masks.mask import Mask, MaskSet
from modscope.models.mlp import mlp
from modscope.partition.partition import Partition
from modscope.statistics import samples_needed
from modscope.wiring.trace import read_wiring
from modscope.wiring.wiring import Wiring
from planted.side_by_side import LEFT, RIGHT, largest_input_tasks, planted

SIZES = [20, 32, 24, 32, 6]


def network(spread: float = 0.0, seed: int = 0) -> Wiring:
    """A perceptron whose hidden units differ in scale by factors of exp(N(0, spread))."""
    model = mlp(SIZES, rng=seed)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and "output" not in name:
                parameter *= torch.from_numpy(np.exp(rng.normal(0, spread, (len(parameter), 1)))).float()
    return read_wiring(model, torch.zeros(1, SIZES[0]))


def masks_from(wiring: Wiring, chance_of_unit: np.ndarray, rng: np.random.Generator) -> dict[str, Tensor]:
    """A mask that keeps a weight with the mean of the chances of the two units that it joins."""
    masks = {}
    for c in wiring.connections:
        chance = (chance_of_unit[c.sources] + chance_of_unit[c.targets]) / 2
        masks[c.parameter] = torch.from_numpy(rng.random(tuple(c.weight.shape)) < chance)
    return masks


def random_partition(wiring: Wiring, rng: np.random.Generator, n_clusters: int = 4) -> Partition:
    return Partition(rng.integers(n_clusters, size=wiring.n_units))


# -- facts ---------------------------------------------------------------------------------------------------------


def slow_log_odds(wiring: Wiring, mask: dict[str, Tensor], labels: np.ndarray, cluster: int) -> float:
    """Mantel & Haenszel's estimator, unit by unit, with half a weight added to every cell."""
    above = below = 0.0
    for group in wiring.groups:
        if group.kind != "hidden":
            continue
        cells = {(inside, kept): 0.5 for inside in (0, 1) for kept in (0, 1)}
        for unit in group.unit_ids:
            inside = int(labels[unit] == cluster)
            for c in wiring.connections:
                for ids in (c.sources, c.targets):
                    of_unit = np.broadcast_to(ids, c.weight.shape) == unit
                    kept = int(mask[c.parameter].numpy()[of_unit].sum())
                    cells[inside, 1] += kept
                    cells[inside, 0] += int(of_unit.sum()) - kept
        total = sum(cells.values())
        above += cells[1, 1] * cells[0, 0] / total
        below += cells[1, 0] * cells[0, 1] / total
    return math.log(above / below)


def unrelated(seed: int) -> tuple[Wiring, dict[str, Tensor], Partition]:
    """A network with a random mask, and three random clusters."""
    rng, wiring = np.random.default_rng(seed), network()
    mask = masks_from(wiring, rng.uniform(0.2, 0.6, wiring.n_units), rng)
    return wiring, mask, random_partition(wiring, rng, 3)


def test_log_odds_are_those_of_mantel_and_haenszel() -> None:
    wiring, mask, partition = unrelated(seed=0)
    found = alignment({"task": mask}, wiring, partition, n_samples=1)
    wanted = [slow_log_odds(wiring, mask, partition.labels, cluster) for cluster in found.clusters]
    np.testing.assert_allclose(found.log_odds[0], wanted, rtol=1e-8)


def test_agreement_is_the_share_of_variance_within_groups_that_the_clusters_explain() -> None:
    wiring, mask, partition = unrelated(seed=1)
    found = alignment({"task": mask}, wiring, partition, n_samples=1)
    hidden = np.concatenate([group.unit_ids for group in wiring.groups if group.kind == "hidden"])
    group = np.eye(len(wiring.groups))[wiring.group_of[hidden]]
    cluster = np.eye(3)[partition.labels[hidden]]
    shares = []
    for direction in ("targets", "sources"):
        share = np.zeros(wiring.n_units)
        for c in wiring.connections:
            ids = np.broadcast_to(getattr(c, direction), c.weight.shape).ravel()
            counts = np.bincount(ids, minlength=wiring.n_units)
            kept = np.bincount(ids, weights=mask[c.parameter].numpy().ravel(), minlength=wiring.n_units)
            share += kept / np.maximum(counts, 1)
        y = share[hidden]

        def left_over(design: np.ndarray, y: np.ndarray = y) -> float:
            return float(((y - design @ np.linalg.pinv(design) @ y) ** 2).sum())

        shares.append(1 - left_over(np.hstack([group, cluster])) / left_over(group))
    assert found.agreement == pytest.approx(np.mean(shares))


def test_standard_errors_are_the_spread_of_log_odds_over_new_networks() -> None:
    rng = np.random.default_rng(2)
    wiring = network()
    partition = random_partition(wiring, rng, 3)
    found = [
        alignment(
            {"task": masks_from(wiring, rng.uniform(0.1, 0.7, wiring.n_units), rng)}, wiring, partition, n_samples=1
        )
        for _ in range(60)
    ]
    spread = np.std([f.log_odds[0] for f in found], axis=0)
    error = np.mean([f.standard_errors[0] for f in found], axis=0)
    np.testing.assert_allclose(error, spread, rtol=0.35)


# -- truth ---------------------------------------------------------------------------------------------------------


def p_values_of_independent(spread: float, n: int, follows_size: bool) -> dict[str, np.ndarray]:
    found = []
    for seed in range(n):
        rng = np.random.default_rng(seed)
        wiring = network(spread, seed)
        chance = rng.uniform(0.1, 0.6, wiring.n_units)  # the weights of a unit rise and fall together
        if follows_size:
            chance = 0.1 + 0.5 * size_rank(wiring)
        masks = {name: masks_from(wiring, chance, rng) for name in ("a", "b")}
        found.append(alignment(masks, wiring, random_partition(wiring, rng), n_samples=39, rng=seed))
    return {
        "raw": np.array([f.raw.p_value for f in found]),
        "controlled": np.array([f.controlled.p_value for f in found]),
        "cells": np.array([f.p_values.min() for f in found]),
        "controlled cells": np.array([f.controlled_p_values.min() for f in found]),
    }


def size_rank(wiring: Wiring) -> np.ndarray:
    """Rank of each unit within its group by the size of its incoming weights, 0 to 1."""
    size = np.zeros(wiring.n_units)
    for c in wiring.connections:
        np.add.at(size, c.targets[:, 0], c.weight.detach().abs().sum(1).numpy())
    ranks = np.zeros(wiring.n_units)
    for group in wiring.groups:
        ranks[group.unit_ids] = size[group.unit_ids].argsort().argsort() / max(group.size - 1, 1)
    return ranks


@pytest.mark.parametrize(("spread", "follows_size"), [(0.0, False), (0.7, True)])
def test_p_is_uniform_where_masks_and_clusters_are_independent(spread: float, follows_size: bool) -> None:
    for name, p_values in p_values_of_independent(spread, 60, follows_size).items():
        assert kstest(p_values, "uniform").pvalue > 0.001, name
        assert (p_values <= 0.05).mean() <= 0.15, name  # 60 draws: .05 + 3.5 standard errors


def test_masks_that_follow_clusters_are_found_and_so_is_which_follows_which() -> None:
    rng = np.random.default_rng(0)
    wiring = network(0.3)
    partition = random_partition(wiring, rng, 4)
    masks = {
        name: masks_from(wiring, np.where(partition.labels == own, 0.6, 0.3), rng) for name, own in (("a", 1), ("b", 2))
    }
    found = alignment(masks, wiring, partition, rng=1)
    assert found.raw.n_samples == samples_needed(2 * 2 * 4 + 3)
    assert found.raw.p_value == found.raw.floor
    assert found.controlled.p_value == found.controlled.floor
    assert found.kept_effect > 0.5
    assert found.log_odds.argmax(axis=1).tolist() == [1, 2]
    assert (found.log_odds[[0, 1], [1, 2]] > 0.5).all()
    assert (found.controlled_p_values[[0, 1], [1, 2]] <= 0.05).all()


def test_agreement_that_weight_size_explains_is_taken_out() -> None:
    """Clusters by size, masks by size: they agree, but not beyond size."""
    n_raw = n_controlled = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        wiring = network(0.7, seed)
        noisy = size_rank(wiring) + rng.normal(0, 0.25, wiring.n_units)
        partition = Partition((noisy > 0.5).astype(np.int64))
        masks = {"a": masks_from(wiring, 0.1 + 0.6 * size_rank(wiring), rng)}
        found = alignment(masks, wiring, partition, n_samples=19, rng=seed)
        n_raw += found.raw.p_value <= 0.05
        n_controlled += found.controlled.p_value <= 0.05
    assert n_raw == 20
    assert n_controlled <= 5


def test_masks_agree_with_lesions_where_they_follow_the_planted_modules() -> None:
    model, wiring, partition = planted()
    rng = np.random.default_rng(0)
    tasks = largest_input_tasks()
    masks = {
        task.name: masks_from(wiring, np.where(partition.labels == side, 0.9, 0.1), rng)
        for task, side in zip(tasks, (LEFT, RIGHT), strict=True)
    }
    found = alignment(masks, wiring, partition, model=model, tasks=tasks, n_samples=99)
    assert found.lesions.observed > 1
    assert found.lesions.p_value == found.lesions.floor
    assert (np.diag(found.drops) > 0.5).all()
    swapped = {"left": masks["right"], "right": masks["left"]}
    against = alignment(swapped, wiring, partition, model=model, tasks=tasks, n_samples=99)
    assert against.lesions.p_value > 0.9


# -- invariances ---------------------------------------------------------------------------------------------------


def test_names_of_clusters_do_not_matter_and_left_out_units_play_no_part() -> None:
    rng = np.random.default_rng(3)
    wiring = network()
    masks = {"a": masks_from(wiring, rng.uniform(0.2, 0.6, wiring.n_units), rng)}
    labels = random_partition(wiring, rng, 3).labels
    labels[30:40] = -1
    found = alignment(masks, wiring, Partition(labels), n_samples=20)
    renamed = alignment(masks, wiring, Partition(np.array([5, 2, 9, -1])[labels]), n_samples=20)
    assert found.raw.observed == pytest.approx(renamed.raw.observed)
    assert renamed.clusters == (2, 5, 9)
    np.testing.assert_allclose(found.log_odds[:, [1, 0, 2]], renamed.log_odds)
    inputs_elsewhere = labels.copy()
    inputs_elsewhere[:20] = 1
    same = alignment(masks, wiring, Partition(inputs_elsewhere), n_samples=20)
    assert same.raw.observed == found.raw.observed


def test_masks_that_keep_all_or_nothing_agree_with_nothing() -> None:
    wiring = network()
    partition = random_partition(wiring, np.random.default_rng(0))
    for keep in (True, False):
        mask = {c.parameter: torch.full(c.weight.shape, keep) for c in wiring.connections}
        found = alignment({"a": mask}, wiring, partition, n_samples=19)
        assert found.agreement == 0
        assert found.raw.p_value == 1
        assert found.controlled.p_value == 1
        assert found.kept_effect is None


def test_seeds_of_a_mask_set_are_averaged() -> None:
    rng = np.random.default_rng(4)
    wiring = network()
    masks = [Mask(masks_from(wiring, rng.uniform(0.2, 0.6, wiring.n_units), rng)) for _ in range(2)]
    partition = random_partition(wiring, rng)
    both = alignment(MaskSet({"a": masks}), wiring, partition, n_samples=5)
    swapped = alignment(MaskSet({"a": masks[::-1]}), wiring, partition, n_samples=5)
    first = alignment(MaskSet({"a": masks[0]}), wiring, partition, n_samples=5)
    np.testing.assert_allclose(both.log_odds, swapped.log_odds)
    assert both.agreement == pytest.approx(swapped.agreement)
    assert both.agreement != first.agreement


def test_same_seed_same_answer() -> None:
    rng = np.random.default_rng(5)
    wiring = network()
    masks = {"a": masks_from(wiring, rng.uniform(0.2, 0.6, wiring.n_units), rng)}
    partition = random_partition(wiring, rng)
    one, two = (alignment(masks, wiring, partition, n_samples=9, rng=7) for _ in range(2))
    assert json.dumps(one.to_dict()) == json.dumps(two.to_dict())


def test_results_can_be_shown() -> None:
    mpl.use("Agg")
    rng = np.random.default_rng(6)
    wiring = network()
    masks = {name: masks_from(wiring, rng.uniform(0.2, 0.6, wiring.n_units), rng) for name in "ab"}
    found = alignment(masks, wiring, random_partition(wiring, rng), n_samples=9)
    assert found.to_frame().height == found.log_odds.size
    assert len(found.plot().images) == 1
    assert "agreement" in found._repr_html_()


# -- bad input -----------------------------------------------------------------------------------------------------


def test_bad_input_is_explained() -> None:
    model, wiring, partition = planted()
    masks = {"left": {c.parameter: torch.ones(c.weight.shape, dtype=torch.bool) for c in wiring.connections}}
    with pytest.raises(PartitionError, match="3 units"):
        alignment(masks, wiring, Partition(np.array([0, 1, 1])))
    with pytest.raises(PartitionError, match="at least two clusters"):
        alignment(masks, wiring, Partition(np.zeros(wiring.n_units, dtype=np.int64)))
    with pytest.raises(MaskError, match="covers none"):
        alignment({"left": {"other": torch.ones(1, dtype=torch.bool)}}, wiring, partition)
    with pytest.raises(MaskError, match="no such task"):
        alignment({"third": masks["left"]}, wiring, partition, model=model, tasks=largest_input_tasks())
    with pytest.raises(MaskError, match="at least one mask"):
        alignment({}, wiring, partition)
