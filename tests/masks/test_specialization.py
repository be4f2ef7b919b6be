from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache

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
    assert found.reuse.p_value == found.reuse.floor == 1 / 100
    assert found.p_specialize is None


FIRST_UNIT = {"disjoint": 8, "half-shared": 4, "identical": 0}  # of the second task; the first has the units 0 to 7


@cache
def scores_of_planted(kind: str, n_second: int) -> tuple[float, float, tuple[float, ...]]:
    """p_specialize, p_reuse and the densities where the second task has `n_second` units; beyond 8 they are weak."""
    start = FIRST_UNIT[kind]
    model = planted_tasks.network([range(8), range(start, start + n_second)])
    with torch.no_grad():
        if kind == "identical":  # the same output neuron read twice, so both tasks need just the same first layer
            model[2].weight[1, :8] = model[2].weight[0, :8]
        model[2].weight[1, start + 8 : start + n_second] *= 0.4
    found = {}
    masks = learn_masks(model, planted_tasks.tasks(model, 2), LEARNER, n_seeds=2)
    for name, functions in (("p_specialize", ["f", "g"]), ("p_reuse", ["f", "f"])):
        tasks = planted_tasks.tasks(model, 2, functions=functions)
        found[name] = specialization(model, masks, tasks, n_samples=1)
    specialize, reuse = found["p_specialize"].p_specialize, found["p_reuse"].p_reuse
    assert specialize is not None
    assert reuse is not None
    return specialize, reuse, tuple(found["p_reuse"].density.tolist())


@pytest.mark.parametrize("n_second", [8, 16], ids=["equal sizes", "unequal sizes"])
def test_scores_of_tasks_that_share_half_their_weights_lie_between_those_of_disjoint_and_of_identical_ones(
    n_second: int,
) -> None:
    disjoint, half_shared, identical = (scores_of_planted(kind, n_second) for kind in FIRST_UNIT)
    assert disjoint[0] > half_shared[0] + 0.2 > identical[0] + 0.7
    assert disjoint[1] < half_shared[1] - 0.2 < identical[1] - 0.7
    assert disjoint[0] > 1
    assert disjoint[1] < 0
    assert identical[0] == pytest.approx(0, abs=0.1)
    assert identical[1] == pytest.approx(1, abs=0.1)
    sizes = identical[2]
    assert sizes[1] / sizes[0] == pytest.approx(n_second / 8, rel=0.2)


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


def test_the_random_removals_are_the_same_with_workers() -> None:
    model = planted_tasks.network([range(8), range(4, 12)])
    tasks = planted_tasks.tasks(model, 2)
    masks = MaskSet({task.name: planted_tasks.needed(model, k) for k, task in enumerate(tasks)})
    alone = specialization(model, masks, tasks, n_samples=7)
    with ThreadPoolExecutor(3) as executor:
        together = specialization(model, masks, tasks, n_samples=7, executor=executor)
    assert len(set(alone.dissociations[0].null_samples)) > 1
    assert together.to_dict() == alone.to_dict()


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
