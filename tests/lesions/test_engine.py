"""Many lesions run fast give the scores that one lesion at a time gives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

from families import FAMILIES
from modscope.errors import LesionError
from modscope.lesions.engine import LesionEngine
from modscope.lesions.silence import silenced
from modscope.tasks.task import Task, evaluate
from modscope.wiring.trace import read_wiring
from planted.side_by_side import largest_input_tasks, planted

NAMES = ["mlp", "lenet", "vgg", "resnet", "densenet", "lstm", "transformer_pre_norm", "head_weights", "gpt2", "llama"]


def first(outputs: Any) -> Tensor:
    return next(leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)).flatten(1)


def task_on(inputs: Any, n_batches: int = 2) -> Task:
    """Any number that depends on every output: enough to compare two ways of computing it."""
    batches = []
    for number in range(n_batches):
        moved = tree_map_only(Tensor, lambda t, n=number: t.roll(n, 0), inputs)
        batches.append(moved if isinstance(moved, dict) else (moved, 0))
    return Task(
        "any",
        batches,
        batches,
        loss=lambda outputs, _: first(outputs).square().mean(),
        correct=lambda outputs, _: first(outputs).square().mean(1).sigmoid(),
    )


def random_lesions(n_units: int, n_lesions: int = 6) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shares = np.linspace(0, 0.9, n_lesions)  # none, few (corrected by columns), many (run again)
    return [rng.random(n_units) < share for share in shares]


@pytest.mark.parametrize("value", ["zero", "mean", "resample"])
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_one_lesion_at_a_time(name: str, value: Any) -> None:
    factory, inputs = FAMILIES[name]
    torch.manual_seed(0)
    model = factory().eval()
    wiring, task = read_wiring(model, inputs), task_on(inputs)
    reference = [tree_map_only(Tensor, lambda t: t.flip(0), batch) for batch in task.train]
    engine = LesionEngine(model, wiring, [task], metric="loss", value=value, reference=reference, rng=5)
    assert engine.is_replayed == (name != "lstm")  # its gates are computed in place, in one piece of memory
    lesions = random_lesions(wiring.n_units)
    for lesion, (score,) in zip(lesions, engine.scores(lesions), strict=True):
        with silenced(model, wiring, np.flatnonzero(lesion), value=value, reference=reference, rng=5):
            wanted = evaluate(model, task).loss
        assert score == pytest.approx(wanted, rel=1e-4)


def test_a_model_that_decides_by_its_activations_is_run_whole() -> None:
    factory, inputs = FAMILIES["early_exit"]
    torch.manual_seed(0)
    model = factory().eval()
    wiring, task = read_wiring(model, inputs), task_on(inputs)
    engine = LesionEngine(model, wiring, [task], metric="loss")
    assert not engine.is_replayed
    lesion = random_lesions(wiring.n_units)[2]
    with silenced(model, wiring, np.flatnonzero(lesion)):
        assert engine.scores([lesion])[0, 0] == pytest.approx(evaluate(model, task).loss, rel=1e-6)


def test_tasks_with_the_same_inputs_share_their_forward_passes() -> None:
    model, wiring, partition = planted()
    left, right = largest_input_tasks()
    n_calls = 0

    def count(*_: Any) -> None:
        nonlocal n_calls
        n_calls += 1

    alone = [LesionEngine(model, wiring, [task]) for task in (left, right)]
    together = LesionEngine(model, wiring, [left, right])
    lesions = [partition.labels == 0, np.zeros(wiring.n_units, dtype=bool)]
    wanted = np.hstack([engine.scores(lesions) for engine in alone])
    hook = model[0].register_forward_hook(count)
    np.testing.assert_array_equal(together.scores(lesions), wanted)
    hook.remove()
    assert n_calls == 3  # one recording per batch


def test_tasks_with_other_inputs_are_run_on_their_own() -> None:
    model, wiring, partition = planted()
    left, right = largest_input_tasks()
    other = Task("other", right.train, [(inputs.flip(0), targets.flip(0)) for inputs, targets in right.test],
                 loss=right.loss, correct=right.correct)  # fmt: skip
    lesions = [partition.labels == 1]
    both = LesionEngine(model, wiring, [left, other]).scores(lesions)
    np.testing.assert_array_equal(both, LesionEngine(model, wiring, [left, right]).scores(lesions))


def test_whole_batches_are_taken_until_there_are_enough_examples() -> None:
    model, wiring, _ = planted()
    assert LesionEngine(model, wiring, largest_input_tasks(), n_examples=150).n_examples == 200
    assert LesionEngine(model, wiring, largest_input_tasks(), n_examples=None).n_examples == 300


def test_scores_do_not_depend_on_the_workers() -> None:
    model, wiring, _ = planted()
    engine = LesionEngine(model, wiring, largest_input_tasks())
    lesions = random_lesions(wiring.n_units, 300)
    with ThreadPoolExecutor(3) as executor:
        np.testing.assert_array_equal(engine.scores(lesions, executor=executor), engine.scores(lesions))


def test_an_unknown_metric_is_an_error() -> None:
    model, wiring, _ = planted()
    with pytest.raises(LesionError, match="'accuracy' or 'loss'"):
        LesionEngine(model, wiring, largest_input_tasks(), metric="f1")  # type: ignore[arg-type]


def test_no_lesions_have_no_scores() -> None:
    model, wiring, _ = planted()
    assert LesionEngine(model, wiring, largest_input_tasks()).scores([]).shape == (0, 2)
