"""Importance finds planted modules, and nothing where there is nothing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import matplotlib as mpl
import numpy as np
import pytest
from scipy.stats import kstest

from fingerprint import differences, fingerprint
from modscope.errors import LesionError
from modscope.lesions.controls import H, control_drops, parts_of
from modscope.lesions.engine import LesionEngine
from modscope.lesions.importance import importance
from modscope.lesions.silence import silenced
from modscope.partition.partition import Partition
from modscope.statistics import samples_needed
from modscope.tasks.task import evaluate
from planted.side_by_side import LEFT, N_CLASSES, RIGHT, largest_input_tasks, planted


def shuffled_labels(wiring, labels: np.ndarray, seed: int) -> Partition:
    rng = np.random.default_rng(seed)
    moved = labels.copy()
    for group in wiring.groups:
        moved[group.unit_ids] = rng.permutation(labels[group.unit_ids])
    return Partition(moved)


def test_each_planted_module_is_needed_by_its_own_task_alone() -> None:
    model, wiring, partition = planted()
    found = importance(model, wiring, partition, largest_input_tasks(), rng=1)
    assert found.n_samples == samples_needed(6 * 2)  # 2 modules in 2 hidden layers, 2 whole modules; 2 tasks
    own = np.array([[part.cluster == side for side in (LEFT, RIGHT)] for part in found.parts])
    np.testing.assert_allclose(found.p_values[own], found.floor)
    assert found.is_important[own].all()
    assert not found.is_important[~own].any()
    assert (found.drops[~own] == 0).all()
    np.testing.assert_allclose(found.drops[own], 1 - 1 / N_CLASSES, atol=0.12)
    assert found.combined is not None
    assert found.combined.p_value == found.combined.floor


def test_planted_modules_are_dissociated_and_own_their_tasks_alone() -> None:
    model, wiring, partition = planted()
    found = importance(model, wiring, partition, largest_input_tasks(), n_samples=99)
    (dissociation,) = found.dissociations
    assert dissociation.tasks == ("left", "right")
    assert dissociation.clusters == (LEFT, RIGHT)
    assert dissociation.comparison.p_value == dissociation.comparison.floor
    assert found.owners("left") == pytest.approx(1)


def test_a_drop_is_the_accuracy_that_silencing_costs() -> None:
    model, wiring, partition = planted()
    tasks = largest_input_tasks()
    found = importance(model, wiring, partition, tasks, n_samples=3)
    for part, drops in zip(found.parts, found.drops, strict=True):
        with silenced(model, wiring, part.unit_ids):
            accuracies = [evaluate(model, task).accuracy for task in tasks]
        np.testing.assert_allclose(drops, found.intact - accuracies, atol=1e-12)


def test_the_loss_rises_where_the_accuracy_falls() -> None:
    model, wiring, partition = planted()
    found = importance(model, wiring, partition, largest_input_tasks(), metric="loss", n_samples=19)
    whole = found.drops[[part.group is None for part in found.parts]]
    assert (np.diag(whole) > 0).all()
    np.testing.assert_allclose(whole - np.diag(np.diag(whole)), 0, atol=1e-6)


@pytest.mark.parametrize("n_samples", [19, pytest.param(150, marks=pytest.mark.slow)])  # 150: with early stopping
def test_p_values_of_random_clusters_are_uniform(n_samples: int) -> None:
    model, wiring, partition = planted()
    tasks = largest_input_tasks(n_examples=40, batch_size=40)
    single, together = [], []
    for seed in range(25):
        random = shuffled_labels(wiring, partition.labels, seed)
        found = importance(model, wiring, random, tasks, n_samples=n_samples, rng=seed)
        single.append(found.p_values[0, 0])
        together.append(found.combined.p_value)
    assert kstest(together, "uniform").pvalue > 0.001
    assert np.mean(together) == pytest.approx(0.5, abs=0.25)
    assert np.mean(np.array(single) <= 0.1) <= 0.3  # ties make single tests conservative, never liberal
    assert np.mean(single) >= 0.4


def test_random_units_are_as_many_in_every_group_and_never_dead() -> None:
    _, wiring, partition = planted()
    labels = partition.labels.copy()
    labels[[7, 8, 20]] = -1
    parts = parts_of(wiring, Partition(labels))
    seen = []

    class Engine(LesionEngine):
        def __init__(self) -> None:
            pass

        def scores(self, lesions, **_):
            seen.extend(lesions)
            return np.zeros((len(lesions), 1))

    options = {"sign": 1, "n_samples": 5, "seed": 0, "executor": None}
    control_drops(Engine(), wiring, Partition(labels), parts, **options)
    random = np.array(seen[1 + len(parts) :]).reshape(5, len(parts), -1)
    for i, part in enumerate(parts):
        counts = np.bincount(wiring.group_of[part.unit_ids], minlength=len(wiring.groups))
        for lesion in random[:, i]:
            np.testing.assert_array_equal(np.bincount(wiring.group_of[lesion], minlength=len(wiring.groups)), counts)
            assert not lesion[labels < 0].any()
    assert len({lesion.tobytes() for lesion in random[:, 0]}) > 1


def test_a_test_stops_at_the_tenth_random_part_that_hurts_as_much() -> None:
    model, wiring, partition = planted()
    random = shuffled_labels(wiring, partition.labels, 3)
    tasks = largest_input_tasks(n_examples=60, batch_size=60)
    stopped = importance(model, wiring, random, tasks, n_samples=400, rng=2)
    for i, j in np.ndindex(*stopped.p_values.shape):
        is_extreme = stopped.random_drops[:, i, j] >= stopped.drops[i, j] - 1e-9  # false where not run
        places = np.flatnonzero(is_extreme)
        wanted = H / (places[H - 1] + 1) if len(places) >= H else (len(places) + 1) / 401
        assert stopped.p_values[i, j] == pytest.approx(wanted)
    assert np.isnan(stopped.random_drops).any()
    assert not np.isnan(stopped.control_drops).any()


def test_results_do_not_depend_on_the_workers() -> None:
    model, wiring, partition = planted()
    alone = importance(model, wiring, partition, largest_input_tasks(), n_samples=30, rng=4)
    with ThreadPoolExecutor(3) as executor:
        spread = importance(model, wiring, partition, largest_input_tasks(), n_samples=30, rng=4, executor=executor)
    np.testing.assert_array_equal(alone.random_drops, spread.random_drops)


def test_mean_and_resample_hurt_less_than_zero_where_units_say_little() -> None:
    model, wiring, partition = planted()
    tasks = largest_input_tasks()
    own = [
        importance(
            model, wiring, partition, tasks, metric="loss", value=value, reference=tasks[0].train, n_samples=2
        ).drops[-2, 0]
        for value in ("zero", "mean", "resample")
    ]
    assert all(drop > 0.05 for drop in own)
    assert own[1] <= own[0]


def test_sub_clusters_of_a_unit_or_of_a_whole_group_are_not_tested_on_their_own() -> None:
    _, wiring, _ = planted()
    labels = np.zeros(wiring.n_units, dtype=np.int64)
    hidden1, _ = (group.unit_ids for group in wiring.groups if group.kind == "hidden")
    labels[hidden1[0]] = 1  # one unit: too small; the rest of hidden1 is 98 % of it
    names = [part.name for part in parts_of(wiring, Partition(labels))]
    group1 = wiring.groups[wiring.group_of[hidden1[0]]].name
    assert names == [f"module 0 in {group1}", "module 0", "module 1"]
    strict = [part.name for part in parts_of(wiring, Partition(labels), max_share=0.9)]
    assert strict == ["module 0", "module 1"]


def test_the_model_is_untouched() -> None:
    model, wiring, partition = planted()
    model.train()
    before = fingerprint(model)
    importance(model, wiring, partition, largest_input_tasks(), n_samples=2)
    assert differences(before, fingerprint(model)) == []


def test_results_can_be_shown() -> None:
    mpl.use("Agg")
    model, wiring, partition = planted()
    found = importance(model, wiring, partition, largest_input_tasks(), n_samples=5)
    frame = found.to_frame()
    assert frame.height == found.drops.size
    assert frame["drop"].to_list() == found.drops.ravel().tolist()
    assert found.plot().get_title() == ""
    assert "module 0" in found._repr_html_() or "cluster" in found._repr_html_()
    assert json.loads(json.dumps(found.to_dict()))["n_samples"] == 5


def test_one_task_has_no_dissociation_and_an_unknown_task_no_owner() -> None:
    model, wiring, partition = planted()
    found = importance(model, wiring, partition, largest_input_tasks()[0], n_samples=2)
    assert found.dissociations == ()
    with pytest.raises(LesionError, match="no task 'right'"):
        found.owners("right")


def test_bad_input_is_explained() -> None:
    model, wiring, partition = planted()
    tasks = largest_input_tasks()
    with pytest.raises(LesionError, match="3 units"):
        importance(model, wiring, Partition(np.array([0, 1, 1])), tasks)
    with pytest.raises(LesionError, match="nothing to silence"):
        importance(model, wiring, Partition(np.full(wiring.n_units, -1)), tasks)
    with pytest.raises(LesionError, match="at least one random partition"):
        importance(model, wiring, partition, tasks, n_samples=0)
    with pytest.raises(LesionError, match="needs a task"):
        importance(model, wiring, partition, [])
    with pytest.raises(LesionError, match="reference"):
        importance(model, wiring, partition, tasks, value="mean")
