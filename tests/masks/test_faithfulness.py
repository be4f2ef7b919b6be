from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from masks import planted_tasks
from modscope.errors import MaskError
from modscope.masks.applied import applied
from modscope.masks.faithfulness import Faithfulness, FaithfulnessPoint, faithfulness
from modscope.masks.learner import MaskLearner
from modscope.masks.mask import Mask
from modscope.tasks.task import Task, evaluate


@pytest.fixture(scope="module")
def planted() -> tuple[nn.Module, Mask, Task]:
    model = planted_tasks.network([range(8), range(8, 16)])
    task = planted_tasks.tasks(model, 2)[0]
    return model, MaskLearner(penalty=0.02, n_steps=100)(model, task), task


def test_density_falls_with_the_threshold_and_every_mask_is_a_part_of_the_one_before(
    planted: tuple[nn.Module, Mask, Task],
) -> None:
    model, mask, task = planted
    curve = faithfulness(model, mask, task, thresholds=[3.0, -math.inf, 0.0, -2.0, math.inf, 1.0])
    thresholds = [point.threshold for point in curve.points]
    assert thresholds == sorted(thresholds)
    assert (np.diff([point.density for point in curve.points]) <= 0).all()
    masks = [mask.at(threshold) for threshold in thresholds]
    assert all((smaller - larger).n_kept == 0 for larger, smaller in itertools.pairwise(masks))


def test_each_point_is_the_network_under_the_mask_cut_at_its_threshold(planted: tuple[nn.Module, Mask, Task]) -> None:
    model, mask, task = planted
    curve = faithfulness(model, mask, task, thresholds=[-1.0, 0.0, 2.0])
    for point in curve.points:
        cut = mask.at(point.threshold)
        assert point.density == cut.density
        with applied(model, cut):
            assert point.accuracy == evaluate(model, task).accuracy
        with applied(model, ~cut):
            assert point.inverse == evaluate(model, task).accuracy
    assert curve.learned == curve.points[1]


def test_keeping_everything_is_the_whole_network_and_keeping_nothing_is_its_inverse(
    planted: tuple[nn.Module, Mask, Task],
) -> None:
    model, mask, task = planted
    curve = faithfulness(model, mask, task, densities=(0.0, 1.0))
    everything, nothing = curve.points
    assert (everything.density, nothing.density) == (1, 0)
    assert everything.accuracy == nothing.inverse == curve.whole_accuracy
    assert everything.inverse == nothing.accuracy


def test_a_planted_task_runs_on_its_own_weights_and_not_on_as_many_random_ones(
    planted: tuple[nn.Module, Mask, Task],
) -> None:
    model, mask, task = planted
    share = planted_tasks.needed(model, 0).density
    curve = faithfulness(model, mask, task, densities=(0.01, share, 1.0), n_random=3)
    assert curve.density_for(0.95) == pytest.approx(share, abs=0.01)
    point = curve.points[1]
    assert point.accuracy > 0.95
    assert point.random is not None
    assert point.random < point.accuracy - 0.2
    assert curve.points[-1].accuracy < 0.6


def test_weights_of_one_logit_stay_together(planted: tuple[nn.Module, Mask, Task]) -> None:
    model, _, task = planted
    rows = MaskLearner(penalty=0.5, n_steps=30, granularity="row")(model, task)
    for density in (0.1, 0.3, 0.6):
        point = faithfulness(model, rows, task, densities=(density,)).points[0]
        kept = rows.at(point.threshold)["0.weight"]
        assert (kept.all(dim=1) | ~kept.any(dim=1)).all()
        assert point.density <= density + 1e-9


def test_the_density_for_an_accuracy_is_the_lowest_above_which_all_reach_it() -> None:
    def curve(*accuracies: float) -> Faithfulness:
        points = [FaithfulnessPoint(float(i), 1 - i / 10, value, 0.0, None) for i, value in enumerate(accuracies)]
        return Faithfulness("task", 1.0, tuple(points), points[0])

    assert curve(1.0, 0.97, 0.5, 0.99).density_for(0.95) == pytest.approx(0.9)
    assert curve(0.9, 0.97).density_for(0.95) is None
    assert curve(1.0, 0.99).density_for(0.5) == pytest.approx(0.9)


def test_wrong_cuts_are_refused(planted: tuple[nn.Module, Mask, Task]) -> None:
    model, mask, task = planted
    with pytest.raises(MaskError, match="only a learned mask"):
        faithfulness(model, ~mask, task)
    with pytest.raises(MaskError, match=r"got 1\.2"):
        faithfulness(model, mask, task, densities=(1.2,))
    with pytest.raises(MaskError, match="thresholds must be numbers"):
        faithfulness(model, mask, task, thresholds=(math.nan,))


def test_a_curve_shows_itself(planted: tuple[nn.Module, Mask, Task]) -> None:
    model, mask, task = planted
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    curve = faithfulness(model, mask, task, densities=(0.0, 0.2, 1.0), n_random=1)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    assert curve.to_frame().height == 3
    assert "<table" in curve._repr_html_()
    json.dumps(curve.to_dict(), allow_nan=False)
    assert curve.record().content["points"][0]["threshold"] is None  # keeps everything
    lines = {line.get_label(): line for line in curve.plot().get_lines()}
    assert list(lines["only these weights"].get_ydata()) == [point.accuracy for point in curve.points]
    assert "as many random weights" in lines
