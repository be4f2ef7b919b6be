from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from masks import planted_tasks
from modscope.errors import MaskError
from modscope.masks.controls import with_random_weights
from modscope.masks.gradients import gradient_cosine
from modscope.masks.halves import half_masks
from modscope.masks.interference import interference
from modscope.masks.learner import MaskLearner
from modscope.masks.mask import Mask
from modscope.masks.paper_controls import control_task, copy_weights, first_full_mask
from modscope.masks.stability import stability
from modscope.tasks.task import Task, evaluate

LEARNER = MaskLearner(penalty=0.02, n_steps=120)


def test_half_masks_mask_the_two_halves_of_the_layers() -> None:
    model, tasks, masks = planted_tasks.two_apart()
    nothing = masks[0] & ~masks[0]
    found = half_masks(model, Mask({**masks[0].kept, "2.weight": nothing["2.weight"]}), tasks)
    assert found.early[0] == 1
    assert found.late[0] < 0.5
    assert found.full[0] < 0.5


def test_a_mask_of_one_layer_has_no_late_half_and_leaves_the_network_whole() -> None:
    model, tasks, masks = planted_tasks.two_apart()
    found = half_masks(model, masks[0].restrict(["0.weight"]), tasks)
    assert found.late == (1, 1)
    assert found.early == found.full


def test_the_control_task_asks_for_everything_at_once() -> None:
    model, tasks, masks = planted_tasks.two_apart()
    both = control_task(tasks)
    assert evaluate(model, both).accuracy == 1
    control = LEARNER(model, both)
    assert (control & masks[0]).n_kept > 0.9 * masks[0].n_kept
    assert (control & masks[1]).n_kept > 0.9 * masks[1].n_kept


def test_parts_of_one_data_set_take_turns_in_the_control_task() -> None:
    model, tasks, _ = planted_tasks.two_apart()
    parts = [Task(n, tasks[0].train[:k], [1], loss=tasks[0].loss, correct=len) for n, k in (("a", 3), ("b", 1))]  # type: ignore[index, arg-type]
    assert len(list(control_task(parts).train)) == 4
    assert evaluate(model, control_task(tasks)).n_examples == 4 * 128


def test_the_first_full_mask_is_the_control_at_the_ends_and_the_inverse_between() -> None:
    _, _, masks = planted_tasks.two_apart()
    mixed = first_full_mask(masks[0], masks[1], ["2.weight"])
    assert torch.equal(mixed["2.weight"], masks[1]["2.weight"])
    assert torch.equal(mixed["0.weight"], ~masks[0]["0.weight"])
    with pytest.raises(MaskError, match="no parameter nowhere"):
        first_full_mask(masks[0], masks[1], ["nowhere"])


def test_copied_weights_make_two_tasks_one() -> None:
    model, _, _ = planted_tasks.two_apart()
    columns, rows = ("0.weight", slice(6, 12), slice(0, 6)), ("2.weight", slice(1, 2), slice(0, 1))
    copied = copy_weights(model, inputs=columns, outputs=rows)
    x = torch.randn(5, planted_tasks.N_INPUTS, generator=torch.Generator().manual_seed(0))
    outputs = copied(x)
    assert torch.equal(outputs[:, 0], outputs[:, 1])
    assert torch.allclose(copied(x.roll(6, dims=1)), outputs, atol=1e-5)


def test_stability_is_the_iou_of_every_two_seeds() -> None:
    _, _, masks = planted_tasks.two_apart()
    found = stability([masks[0], masks[0], masks[1]])
    assert [(pair.first, pair.second, pair.iou) for pair in found.pairs] == [(0, 1, 1), (0, 2, 0), (1, 2, 0)]
    assert found.mean == pytest.approx(1 / 3)
    with pytest.raises(MaskError, match="n_seeds=2"):
        stability(masks[:1])


def test_the_chance_beside_stability_is_what_random_masks_of_these_sizes_have() -> None:
    rng = np.random.default_rng(0)
    drawn = [Mask({"w": torch.from_numpy(rng.permutation(60) < 20)}) for _ in range(40)]
    found = stability(drawn)
    assert found.mean == pytest.approx(found.chance, abs=0.01)
    # with strata: the same 20 weights of 30 large ones by chance agree more than of 60
    strata = {"w": (torch.arange(60) < 30).to(torch.uint8) + 1}
    large = [Mask({"w": torch.from_numpy(np.append(rng.permutation(30) < 20, np.zeros(30, bool)))}) for _ in range(20)]
    matched = stability([Mask(mask.kept, None, {}, strata) for mask in large])
    assert matched.mean == pytest.approx(matched.chance, abs=0.01)
    assert stability(large).mean > stability(large).chance + 0.2


def test_the_gradient_of_the_whole_mask_is_the_gradient_itself() -> None:
    model, tasks, masks = planted_tasks.two_apart()
    noisy = with_random_weights(model, rng=0)  # at its own outputs a network has no gradient
    everything = masks[0] | ~masks[0]
    assert gradient_cosine(noisy, everything, tasks[0]).total == pytest.approx(1, abs=1e-5)
    assert abs(gradient_cosine(noisy, masks[0], tasks[0]).by_parameter["0.weight"]) < 0.999
    # no weight of this output is kept
    assert np.isnan(gradient_cosine(noisy, masks[1], tasks[0]).by_parameter["2.weight"])


def test_the_gradient_cosine_is_that_of_gradients_by_backward() -> None:
    model, tasks, masks = planted_tasks.two_apart()
    noisy = with_random_weights(model, rng=0)

    def gradients(masked: bool) -> torch.Tensor:
        copied = copy.deepcopy(noisy)
        with torch.no_grad():
            for name, parameter in copied.named_parameters():
                if masked and name in masks[0].names:
                    parameter.mul_(masks[0][name])
        sum(tasks[0].loss(copied(x), y) for x, y in tasks[0].test).backward()
        return torch.cat([dict(copied.named_parameters())[name].grad[masks[0][name]] for name in masks[0].names])

    wanted = torch.nn.functional.cosine_similarity(gradients(True), gradients(False), dim=0)
    assert gradient_cosine(noisy, masks[0], tasks[0]).total == pytest.approx(float(wanted), abs=1e-5)


def test_noise_on_one_module_leaves_the_other_task_alone() -> None:
    model, tasks, masks = planted_tasks.two_apart()
    strata = {name: (p.detach().abs() > 0.5).to(torch.uint8) for name, p in model.named_parameters() if p.ndim == 2}
    found = interference(model, Mask(masks[0].kept, strata=strata), tasks, noise=2.0)
    assert found.lost[0] > 0.4
    assert found.lost[1] == 0
    assert found.p_values[1] == 1 / 20
    assert found.p_values[0] > 0.5
    assert found.to_frame()["lost"].to_list() == list(found.lost)
    assert found.record().content["p_values"] == list(found.p_values)
    assert "output 1 loses 0.000" in str(found)
