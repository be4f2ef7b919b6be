"""What a task is, and how well a model does it: against a slow count, example by example."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from modscope.errors import ModscopeError, TaskError, WiringError
from modscope.models.mlp import mlp
from modscope.tasks.task import Task, as_tasks, checked_classes, evaluate


def _batches(n_examples: int, size: int, seed: int = 0, n_classes: int = 4) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rng = np.random.default_rng(seed)
    inputs = torch.from_numpy(rng.normal(size=(n_examples, 3)).astype(np.float32))
    targets = torch.from_numpy(rng.integers(n_classes, size=n_examples))
    return list(zip(inputs.split(size), targets.split(size), strict=True))


def _is_right(logits, targets):
    return logits.argmax(dim=1) == targets


def _task(test, *, name="task", train=(), **changes) -> Task:
    functions = {"loss": F.cross_entropy, "correct": _is_right, "class_of": lambda targets: targets} | changes
    return Task(name, list(train), test, **functions)


class _Slow(NamedTuple):
    accuracy: float
    loss: float
    class_accuracy: list[float]


def _slow_evaluation(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> _Slow:
    right, losses, by_class = [], [], {}
    for inputs, targets in batches:
        for example, target in zip(inputs, targets, strict=True):
            logits = model(example).detach()
            right.append(float(int(logits.argmax()) == int(target)))
            losses.append(float(logits.logsumexp(dim=0) - logits[target]))
            by_class.setdefault(int(target), []).append(right[-1])
    per_class = [float(np.mean(by_class[index])) if index in by_class else np.nan for index in range(max(by_class) + 1)]
    return _Slow(float(np.mean(right)), float(np.mean(losses)), per_class)


@settings(max_examples=20)
@given(n_examples=st.integers(1, 40), size=st.integers(1, 15), seed=st.integers(0, 1000))
def test_evaluation_agrees_with_a_count_example_by_example(n_examples, size, seed):
    model, batches = mlp([3, 5, 4], rng=seed), _batches(n_examples, size, seed)
    evaluation, slow = evaluate(model, _task(batches)), _slow_evaluation(model, batches)
    assert evaluation.n_examples == n_examples
    assert evaluation.accuracy == pytest.approx(slow.accuracy)
    assert evaluation.loss == pytest.approx(slow.loss, rel=1e-5)
    assert evaluation.class_accuracy == pytest.approx(slow.class_accuracy, nan_ok=True)


def test_a_smaller_last_batch_counts_by_its_examples():
    model, examples = mlp([3, 5, 4], rng=0), _batches(10, 10)
    inputs, targets = examples[0]
    ragged = list(zip(inputs.split([7, 2, 1]), targets.split([7, 2, 1]), strict=True))
    whole, parts = evaluate(model, _task(examples)), evaluate(model, _task(ragged))
    assert parts.accuracy == pytest.approx(whole.accuracy)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert np.array_equal(parts.class_accuracy, whole.class_accuracy, equal_nan=True)


def test_a_class_without_examples_has_no_accuracy():
    inputs = torch.zeros(4, 3)
    evaluation = evaluate(mlp([3, 6], rng=0), _task([(inputs, torch.tensor([5, 5, 0, 0]))]))
    assert np.isnan(evaluation.class_accuracy[1:5]).all()
    assert not np.isnan(evaluation.class_accuracy[[0, 5]]).any()


def test_a_later_batch_may_bring_new_classes():
    batches = [(torch.zeros(2, 3), torch.tensor([0, 0])), (torch.zeros(1, 3), torch.tensor([3]))]
    assert len(evaluate(mlp([3, 4], rng=0), _task(batches)).class_accuracy) == 4


def test_a_task_without_classes_has_no_class_accuracy():
    assert evaluate(mlp([3, 4], rng=0), _task(_batches(4, 2), class_of=None)).class_accuracy is None


def test_correct_may_be_a_share():
    task = _task(_batches(6, 4), correct=lambda logits, targets: torch.full((len(targets),), 0.25))
    assert evaluate(mlp([3, 4], rng=0), task).accuracy == pytest.approx(0.25)


def test_the_split_is_the_one_asked_for():
    task = _task(_batches(6, 4), train=_batches(9, 4, seed=1))
    assert evaluate(mlp([3, 4], rng=0), task).n_examples == 6
    assert evaluate(mlp([3, 4], rng=0), task, split="train").n_examples == 9


class _Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = mlp([3, 4], rng=0)

    def forward(self, values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.linear(values) * scale


def test_dict_batches_give_the_model_the_keys_it_takes_and_the_task_all_of_them():
    (values, labels), *_ = _batches(5, 5)
    dicts = [{"values": values, "scale": torch.tensor(2.0), "labels": labels, "note": torch.zeros(5)}]
    task = _task(
        dicts,
        loss=lambda logits, batch: F.cross_entropy(logits, batch["labels"]),
        correct=lambda logits, batch: logits.argmax(dim=1) == batch["labels"],
        class_of=lambda batch: batch["labels"],
    )
    model = _Named()
    logits = model(values, torch.tensor(2.0))
    assert evaluate(model, task).loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)


def test_a_tuple_of_inputs_is_given_in_order():
    (values, labels), *_ = _batches(5, 5)
    evaluation = evaluate(_Named(), _task([((values, torch.tensor(3.0)), labels)]))
    expected = F.cross_entropy(_Named()(values, torch.tensor(3.0)), labels)
    assert evaluation.loss == pytest.approx(expected.item(), rel=1e-6)


def test_the_model_is_left_as_it_was_and_runs_in_eval_mode():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9), mlp([3, 4], rng=0))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (evaluate(model, _task(_batches(8, 3))) for _ in range(2))
    assert first.loss == second.loss
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [layer.training for layer in model] == [True, False, True]
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_modes_come_back_after_an_exception_too():
    model = mlp([3, 4], rng=0)
    with pytest.raises(TaskError, match=r"running the model on task 'task' failed on inputs \(2, 5\) float32"):
        evaluate(model, _task([(torch.zeros(2, 5), torch.zeros(2, dtype=torch.long))]))
    assert model.training


def test_errors_of_ours_pass_through_unchanged():
    class Refuses(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ModscopeError("as it is")

    with pytest.raises(ModscopeError, match=r"^as it is$"):
        evaluate(Refuses(), _task(_batches(2, 2)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": lambda logits, targets: logits}, r"scalar tensor \(mean over examples\), got shape \(4, 4\)"),
        ({"loss": lambda logits, targets: 1.0}, "scalar tensor .*, got float"),
        ({"loss": lambda logits, targets: targets.nothing}, "the loss of task 'task' failed: AttributeError"),
        ({"correct": lambda logits, targets: logits > 0}, r"one value per example \(a vector\), got shape \(4, 4\)"),
        ({"correct": lambda logits, targets: None}, "got NoneType"),
        ({"correct": lambda logits, targets: targets - 1.5}, r"values in \[0, 1\], got "),
        ({"class_of": lambda targets: targets.nothing}, "'class_of' of task 'task' failed: AttributeError"),
        ({"class_of": lambda targets: targets.tolist()}, "one class index >= 0 per example .*, got list"),
        ({"correct": lambda logits, targets: 1 / 0}, "'correct' of task 'task' failed: ZeroDivisionError"),
        (
            {"class_of": lambda targets: targets[:2]},
            r"one class index >= 0 per example \(4 examples\), got shape \(2,\)",
        ),
        ({"class_of": lambda targets: targets - 9}, "one class index >= 0"),
    ],
)
def test_functions_that_do_not_fit_are_named_with_what_they_gave(changes, message):
    with pytest.raises(TaskError, match=message):
        evaluate(mlp([3, 4], rng=0), _task(_batches(4, 4), **changes))


@pytest.mark.parametrize("function", ["loss", "correct", "class_of"])
def test_errors_of_ours_in_a_function_pass_through_unchanged(function):
    def refuse(*arguments):
        raise ModscopeError("as it is")

    with pytest.raises(ModscopeError, match=r"^as it is$"):
        evaluate(mlp([3, 4], rng=0), _task(_batches(2, 2), **{function: refuse}))


def test_classes_of_a_task_without_them_are_refused():
    with pytest.raises(TaskError, match="task 'task' has no classes; give it class_of"):
        checked_classes(_task([], class_of=None), torch.zeros(2), 2)


def test_a_task_needs_data_in_batches_and_a_model():
    with pytest.raises(TaskError, match="task 'task' has no test data"):
        evaluate(mlp([3, 4], rng=0), _task([]))
    with pytest.raises(TaskError, match=r"a batch must be \(inputs, targets\) or a dict, got Tensor"):
        evaluate(mlp([3, 4], rng=0), _task([torch.zeros(2, 3)]))
    with pytest.raises(WiringError, match=r"must be a torch\.nn\.Module, got function"):
        evaluate(lambda x: x, _task(_batches(2, 2)))


def test_data_that_can_be_read_once_only_is_refused():
    with pytest.raises(TaskError, match=r"test data of task 'task' can be read only once \(generator\)"):
        _task(batch for batch in _batches(4, 2))
    with pytest.raises(TaskError, match="must be iterable, got int"):
        _task(3)
    with pytest.raises(TaskError, match="a task needs a name"):
        _task([], name="")


def test_tasks_are_one_or_several_with_names_of_their_own():
    first, second = _task([], name="first"), _task([], name="second")
    assert as_tasks(first) == (first,)
    assert as_tasks([first, second]) == (first, second)
    with pytest.raises(TaskError, match="given twice: first"):
        as_tasks([first, second, first])
    with pytest.raises(TaskError, match="got str"):
        as_tasks(["first"])


def test_a_task_for_tests_evaluates_the_same_without_its_training_data() -> None:
    batches = [(torch.randn(4, 3), torch.randint(2, (4,)))]
    task = Task("t", [*batches, *batches], batches, loss=F.cross_entropy, correct=lambda o, y: o.argmax(1) == y)
    model = torch.nn.Linear(3, 2)
    lighter = task.for_tests()
    assert evaluate(model, lighter).accuracy == evaluate(model, task).accuracy
    assert len(list(task.batches("train"))) == 2
    with pytest.raises(TaskError, match="no train data"):
        next(lighter.batches("train"))
