from __future__ import annotations

import numpy as np
import pytest
import torch

from fingerprint import differences
from masks import planted_tasks
from masks.untouched import state_of
from modscope.errors import MaskError
from modscope.masks.controls import chance_of_one_more, mask_controls, succeeded, with_random_weights
from modscope.masks.learner import MaskLearner
from modscope.masks.mask import Mask

LEARNER = MaskLearner(penalty=0.02, n_steps=120)


def test_a_planted_mask_passes_both_controls_and_an_empty_or_idle_one_fails() -> None:
    model, tasks, masks = planted_tasks.two_apart()
    before = state_of(model)
    found = mask_controls(model, masks[0], tasks[0], learner=LEARNER)
    assert differences(before, state_of(model)) == []
    assert found.passes
    assert found.mask_accuracy > 0.95
    assert found.random_mask_accuracy < 0.6
    assert found.ablated_accuracy < 0.5
    assert found.random_density == pytest.approx(found.density, abs=0.01)
    empty = mask_controls(model, masks[0] & ~masks[0], tasks[0], learner=LEARNER)
    assert empty.reason == "the mask is empty"
    of_the_other = mask_controls(model, masks[1], tasks[0], learner=LEARNER)
    assert not of_the_other.passes


def test_the_controls_learn_masks_of_the_same_size_on_other_weights_each_time() -> None:
    model, tasks, masks = planted_tasks.two_apart()
    found = mask_controls(model, masks[0], tasks[0], learner=LEARNER, n_networks=4)
    assert len(set(found.random_mask_accuracies)) > 1
    learned = sorted(found.random_mask_accuracies)[found.n_failed :]
    assert found.random_mask_accuracy == pytest.approx(np.mean(learned))
    assert found.p_built is not None
    assert found.p_built < 0.01
    assert found.built_share is not None
    assert found.built_share < 0.5
    assert found.record().content["p_built"] == found.p_built
    assert found.to_frame().height == 1
    assert "found" in str(found)
    with pytest.raises(MaskError, match="n_networks"):
        mask_controls(model, masks[0], tasks[0], n_networks=0)


def test_a_mask_that_random_weights_match_is_called_built() -> None:
    """Random weights with a readout of their own: a mask finds nothing there that shuffled weights do not offer."""
    model, tasks, _ = planted_tasks.two_apart()
    noise = with_random_weights(model, rng=5)
    built = mask_controls(noise, LEARNER(noise, tasks[0]), tasks[0], learner=LEARNER)
    assert not built.passes


@pytest.mark.parametrize("n_networks", [2, 3, 5])
def test_one_network_more_of_the_same_kind_is_called_found_at_the_level(n_networks: int) -> None:
    rng = np.random.default_rng(n_networks)
    rates = np.clip(rng.normal(0.7, 0.08, size=(2000, n_networks + 1)), 0, 1)
    accuracies = rng.binomial(500, rates) / 500
    found = [chance_of_one_more(row[1:], row[0], 500) <= 0.05 for row in accuracies]
    assert 0.01 < np.mean(found) < 0.065


@pytest.mark.parametrize("n_networks", [3, 6])
def test_learnings_that_fail_neither_hide_a_found_mask_nor_let_a_built_one_pass(n_networks: int) -> None:
    rng = np.random.default_rng(n_networks)
    rates = np.clip(rng.normal(0.7, 0.06, size=(3000, n_networks + 1)), 0, 1)
    rates[rng.random(rates.shape) < 0.15] = 0.1  # what the network does without any mask
    accuracies = rng.binomial(500, rates) / 500
    used = [row[1:][succeeded(row[1:], 0.1)] for row in accuracies]
    called = [chance_of_one_more(others, row[0], 500) <= 0.05 for others, row in zip(used, accuracies, strict=True)]
    assert 0.01 < np.mean(called) < 0.06
    with_failures = [chance_of_one_more(row[1:], 0.95, 500) <= 0.05 for row in accuracies]
    without = [chance_of_one_more(others, 0.95, 500) <= 0.05 for others in used]
    assert np.mean(without) > np.mean(with_failures) + 0.1


def test_what_befalls_more_than_a_third_of_the_learnings_is_no_failure() -> None:
    assert succeeded(np.array([0.1, 0.1, 0.1, 0.5, 0.5, 0.5]), 0.1).sum() == 4
    assert succeeded(np.array([0.1, 0.9]), 0.1).all()
    assert succeeded(np.array([0.70, 0.65, 0.6]), 0.1).all()


def test_an_empty_mask_needs_no_learning() -> None:
    model, tasks, masks = planted_tasks.two_apart()

    def learner(*_: object, **__: object) -> Mask:
        raise AssertionError("learned")

    found = mask_controls(model, masks[0] & ~masks[0], tasks[0], learner=learner)
    assert found.random_density == 0
    assert not found.passes


def test_equal_controls_leave_the_noise_of_the_test_examples() -> None:
    equal = np.array([0.5, 0.5, 0.5])
    assert chance_of_one_more(equal, 0.52, 100) > 0.3
    assert chance_of_one_more(equal, 0.52, 1_000_000) < 0.01
    assert chance_of_one_more(equal, 0.5, 100) == pytest.approx(0.5)


def test_random_weights_keep_their_sizes_and_lose_their_places() -> None:
    model, _, _ = planted_tasks.two_apart()
    shuffled = with_random_weights(model, rng=0)
    for one, other in zip(model.parameters(), shuffled.parameters(), strict=True):
        assert torch.equal(one.detach().flatten().sort()[0], other.detach().flatten().sort()[0])
    assert not torch.equal(model[0].weight, shuffled[0].weight)
    assert torch.equal(shuffled[0].weight, with_random_weights(model, rng=0)[0].weight)
