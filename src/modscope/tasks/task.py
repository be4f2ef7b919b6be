"""What is a task, and how well does a model do it?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modscope.calling import call, check_model, device_of, evaluation_mode, explained, moved, split_batch
from modscope.errors import ModscopeError, TaskError

Split: TypeAlias = Literal["train", "test"]


@dataclass(frozen=True, eq=False)
class Task:
    """Data, a loss, and what counts as correct.

    Args:
        name: What the task is called in tables and in the report.
        train, test: Anything that can be iterated again and gives batches: `(inputs, targets)`, or dicts that the
            model takes as keywords (then `targets` is the dict).
        loss: `loss(outputs, targets)` -> scalar, the mean over the examples.
        correct: `correct(outputs, targets)` -> one bool, or a value in [0, 1], per example.
        class_of: `class_of(targets)` -> class index per example; None: the task has no classes.
        function: What the task computes. Tasks of one function ("addition" of two pairs) are pairs for reuse, all
            others are pairs for specialisation. None: a function of its own.
        batch_dim: The axis of the inputs along which examples lie.
        counterfactual: `counterfactual(batch)` -> inputs paired with the batch's, example by example: where a masked
            unit may take its value from (see `MaskLearner(removed="counterfactual")`). None: the task has no pairs.

    Raises:
        TaskError: If the name is empty, or `train` or `test` can be read only once.
    """

    name: str
    train: Iterable[Any]
    test: Iterable[Any]
    _: KW_ONLY
    loss: Callable[[Any, Any], Tensor]
    correct: Callable[[Any, Any], Tensor]
    class_of: Callable[[Any], Tensor] | None = None
    function: str | None = None
    batch_dim: int = 0
    counterfactual: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TaskError(f"a task needs a name, got {self.name!r}")
        for split in ("train", "test"):
            data = getattr(self, split)
            if not isinstance(data, Iterable):
                raise TaskError(f"{split} data of task '{self.name}' must be iterable, got {type(data).__name__}")
            if iter(data) is data:
                raise TaskError(
                    f"{split} data of task '{self.name}' can be read only once ({type(data).__name__}); "
                    "give a list of batches or a DataLoader"
                )

    def batches(self, split: Split) -> Iterator[Any]:
        """The batches of one split.

        Raises:
            TaskError: If there is none.
        """
        is_empty = True
        for batch in getattr(self, split):
            is_empty = False
            yield batch
        if is_empty:
            raise TaskError(f"task '{self.name}' has no {split} data; give at least one batch")

    def for_tests(self) -> Task:
        """The task without its training data: all that a worker needs who only evaluates, and far less to send."""
        lighter = copy.copy(self)  # not `replace`, which would look at the data again, and so begin to load it
        object.__setattr__(lighter, "train", ())
        return lighter


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a model does a task. Fractions are in [0, 1]."""

    accuracy: float
    class_accuracy: Float[np.ndarray, " classes"] | None  # NaN for a class without examples; None without classes
    loss: float
    n_examples: int


def as_tasks(tasks: Task | Sequence[Task]) -> tuple[Task, ...]:
    """One task or several, as a tuple.

    Raises:
        TaskError: If there is something else among them, or two have one name.
    """
    several = (tasks,) if isinstance(tasks, Task) else tuple(tasks)
    for task in several:
        if not isinstance(task, Task):
            raise TaskError(f"tasks must be modscope.Task objects, got {type(task).__name__}")
    names = [task.name for task in several]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise TaskError(f"every task needs a name of its own; given twice: {', '.join(repeated)}")
    return several


def evaluate(model: nn.Module, task: Task, *, split: Split = "test") -> Evaluation:
    """Accuracy (in all and per class) and loss of the model on a task's data, in eval mode, without gradients.

    Raises:
        TaskError: If the task has no data, the model fails on it, or `loss` or `correct` do not fit the outputs.
    """
    model = check_model(model)
    if not isinstance(task, Task):
        raise TaskError(f"a modscope.Task is wanted, got {type(task).__name__}")
    sums = _Sums()
    with evaluation_mode(model), torch.no_grad():
        for batch in task.batches(split):
            inputs, targets = split_batch(model, batch)
            targets = moved(targets, device_of(model))
            try:
                outputs = call(model, inputs)
            except ModscopeError:
                raise
            except Exception as error:
                raise explained(error, f"running the model on task '{task.name}'", inputs, TaskError) from error
            sums.add(task, outputs, targets)
    return sums.evaluation()


class _Sums:
    """Running sums over batches; counts are exact, so the size of the batches does not matter."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.correct = 0.0
        self.n_examples = 0
        self.class_correct = np.zeros(0)
        self.class_count = np.zeros(0)
        self.has_classes = False

    def add(self, task: Task, outputs: Any, targets: Any) -> None:
        correct = checked_correct(task, outputs, targets).double().cpu()
        self.n_examples += len(correct)
        self.correct += float(correct.sum())
        self.loss += float(checked_loss(task, outputs, targets)) * len(correct)
        if task.class_of is None:
            return
        self.has_classes = True
        classes = checked_classes(task, targets, len(correct)).cpu().numpy()
        n_classes = max(int(classes.max(initial=-1)) + 1, len(self.class_count))
        self.class_correct = _grown(self.class_correct, n_classes)
        self.class_count = _grown(self.class_count, n_classes)
        self.class_correct += np.bincount(classes, weights=correct.numpy(), minlength=n_classes)
        self.class_count += np.bincount(classes, minlength=n_classes)

    def evaluation(self) -> Evaluation:
        class_accuracy = None
        if self.has_classes:
            class_accuracy = np.full(len(self.class_count), np.nan)
            np.divide(self.class_correct, self.class_count, out=class_accuracy, where=self.class_count > 0)
        n = max(self.n_examples, 1)
        return Evaluation(self.correct / n, class_accuracy, self.loss / n, self.n_examples)


def checked_loss(task: Task, outputs: Any, targets: Any) -> Tensor:
    """The task's loss, as a scalar tensor.

    Raises:
        TaskError: If it cannot be computed, or is not a scalar.
    """
    loss = _computed(f"the loss of task '{task.name}'", task.loss, outputs, targets)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        raise TaskError(
            f"the loss of task '{task.name}' must be a scalar tensor (mean over examples), got {_kind(loss)}"
        )
    return loss.reshape(())


def checked_correct(task: Task, outputs: Any, targets: Any) -> Tensor:
    """What the task counts as correct: one value in [0, 1] per example.

    Raises:
        TaskError: If it cannot be computed, or is not a vector.
    """
    correct = _computed(f"'correct' of task '{task.name}'", task.correct, outputs, targets)
    if not isinstance(correct, Tensor) or correct.ndim != 1:
        raise TaskError(
            f"'correct' of task '{task.name}' must give one value per example (a vector), got {_kind(correct)}"
        )
    outside = correct[~((correct >= 0) & (correct <= 1))] if correct.is_floating_point() else correct[:0]
    if len(outside):
        raise TaskError(f"'correct' of task '{task.name}' must give bools or values in [0, 1], got {float(outside[0])}")
    return correct


def checked_classes(task: Task, targets: Any, n_examples: int) -> Int[Tensor, " examples"]:
    """The class index of each example, for a task that has classes.

    Raises:
        TaskError: If there are none, or not one per example.
    """
    if task.class_of is None:
        raise TaskError(f"task '{task.name}' has no classes; give it class_of")
    classes = _computed(f"'class_of' of task '{task.name}'", task.class_of, targets)
    if not isinstance(classes, Tensor) or classes.shape != (n_examples,) or bool((classes < 0).any()):
        raise TaskError(
            f"class_of of task '{task.name}' must give one class index >= 0 per example "
            f"({n_examples} examples), got {_kind(classes)}"
        )
    return classes.long()


def _computed(what: str, function: Callable[..., object], *arguments: Any) -> object:
    """What a function of the user gives.

    Raises:
        TaskError: If it fails; `what` says what it was for.
    """
    try:
        return function(*arguments)
    except ModscopeError:
        raise
    except Exception as error:
        raise TaskError(f"{what} failed: {type(error).__name__}: {error}") from error


def _kind(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _grown(sums: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([sums, np.zeros(size - len(sums))])
