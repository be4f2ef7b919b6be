from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from fingerprint import differences, fingerprint_of_model
from masks import planted_tasks
from modscope.errors import MaskError
from modscope.masks.learner import MaskLearner, learn_masks
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.removal import random_like
from modscope.masks.specialization import Specialization, specialization

LEARNER = MaskLearner(penalty=0.02, n_steps=100)


def specialization_of(blocks: list[range], functions: list[str], n_seeds: int = 2) -> Specialization:
    model = planted_tasks.network(blocks)
    tasks = planted_tasks.tasks(model, 2, functions=functions)
    return specialization(model, learn_masks(model, tasks, LEARNER, n_seeds=n_seeds), tasks)


def test_tasks_on_disjoint_weights_are_specialised_and_dissociate() -> None:
    found = specialization_of([range(8), range(8, 16)], ["f", "g"])
    assert found.p_specialize is not None
    assert found.p_specialize > 0.9
    assert found.p_reuse is None
    assert "p_reuse" in found.reasons
    (pair,) = found.dissociations
    assert min(pair.own_loss) > 0.4
    assert max(pair.other_loss) < 0.2
    assert pair.observed > max(pair.null_samples)
    assert pair.p_value == pair.floor == 1 / 20
    assert (np.diag(found.mask_accuracy) > 0.9).all()
    assert (np.diag(found.inverse_accuracy) < 0.5).all()


def test_tasks_on_the_same_weights_reuse_them() -> None:
    model = planted_tasks.network([range(8), range(8)])
    with torch.no_grad():  # one output neuron read twice, so both tasks need just the same first layer
        model[2].weight[1] = model[2].weight[0]
    tasks = planted_tasks.tasks(model, 2, functions=["f", "f"])
    masks = learn_masks(model, tasks, LEARNER, n_seeds=2)
    found = specialization(model, masks, tasks)
    assert found.p_reuse is not None
    assert found.p_reuse > 0.9
    assert found.p_specialize is None


def test_tasks_that_share_half_their_weights_lie_between() -> None:
    shared = specialization_of([range(8), range(4, 12)], ["f", "g"]).p_specialize
    apart = specialization_of([range(8), range(8, 16)], ["f", "g"]).p_specialize
    assert shared is not None
    assert apart is not None
    assert 0.2 < shared < apart - 0.2


def test_with_one_seed_a_task_the_scores_are_none_and_say_so() -> None:
    found = specialization_of([range(8), range(8, 16)], ["f", "g"], n_seeds=1)
    assert found.p_specialize is None
    assert "n_seeds=2" in found.reasons["p_specialize"]
    assert len(found.dissociations) == 1


def test_empty_masks_give_no_score() -> None:
    model = planted_tasks.network([range(8), range(8, 16)])
    tasks = planted_tasks.tasks(model, 2, functions=["f", "g"])
    nothing = Mask({name: torch.zeros(tensor.shape, dtype=torch.bool) for name, tensor in model.named_parameters()})
    found = specialization(model, MaskSet({task.name: [nothing, nothing] for task in tasks}), tasks, n_samples=3)
    assert found.p_specialize is None
    assert "is empty" in found.reasons["p_specialize"]


def test_the_model_is_untouched_and_the_record_is_plain_json() -> None:
    model = planted_tasks.network([range(8), range(8, 16)])
    tasks = planted_tasks.tasks(model, 2)
    masks = MaskSet({task.name: planted_tasks.needed(model, k) for k, task in enumerate(tasks)})
    # of the model only: the shape checks of the test run draw from Python's random numbers
    before = fingerprint_of_model(model)
    found = specialization(model, masks, tasks, n_samples=3)
    assert differences(before, fingerprint_of_model(model)) == []
    again = specialization(model, masks, tasks, n_samples=3)
    json.dumps(found.to_dict(), allow_nan=False)
    assert found.to_frame().height == 4
    assert again.to_dict() == found.to_dict()


def test_random_masks_match_the_number_of_weights_per_stratum() -> None:
    strata = {"w": torch.arange(60).reshape(6, 10).remainder(4).to(torch.uint8)}
    mask = Mask({"w": torch.arange(60).reshape(6, 10) < 30})
    drawn = random_like(mask, strata, np.random.default_rng(0))
    for stratum in (1, 2, 3):
        members = strata["w"] == stratum
        assert drawn["w"][members].sum() == mask["w"][members].sum()
    assert drawn["w"][strata["w"] == 0].sum() == 0


def test_a_task_without_masks_is_named() -> None:
    model = planted_tasks.network([range(8), range(8, 16)])
    tasks = planted_tasks.tasks(model, 2)
    with pytest.raises(MaskError, match="no mask of task output 1"):
        specialization(model, MaskSet({"output 0": planted_tasks.needed(model, 0)}), tasks)
