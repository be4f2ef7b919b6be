"""Which tasks are about pictures?"""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modscope.data.digits import LEFT, RIGHT
from modscope.data.examples import DataSet, Encode
from modscope.errors import TaskError
from modscope.tasks.task import Task

N_DIGITS = 10
Logits = Float[Tensor, "examples 20"]  # ten for the left digit, then ten for the right one
Labels = Int[Tensor, "examples 2"]


def left_digit(data: DataSet, *, batch_size: int = 500) -> Task:
    """Name the left one of two digits, from outputs 0 to 9."""
    return _one_digit("left", LEFT, data, batch_size)


def right_digit(data: DataSet, *, batch_size: int = 500) -> Task:
    """Name the right one of two digits, from outputs 10 to 19."""
    return _one_digit("right", RIGHT, data, batch_size)


def both_digits(data: DataSet, *, batch_size: int = 500) -> Task:
    """Name both digits, which is what the network is trained for: the sum of the two losses, right if both are."""
    return Task(
        "both",
        data.train.batches(batch_size),
        data.test.batches(batch_size),
        loss=_both_loss,
        correct=_both_correct,
        function="name both digits",
    )


def classification(name: str, data: DataSet, *, encode: Encode | None = None, batch_size: int = 500) -> Task:
    """Name the class of each picture; the largest output counts.

    Args:
        name: The task's name, and what it computes.
        data: Pictures and classes.
        encode: Turns the stored pixels into the model's inputs, such as `prepare` of a published network.
        batch_size: Pictures in a batch.
    """
    train, test = (examples.batches(batch_size, encode=encode) for examples in (data.train, data.test))
    return Task(
        name,
        train,
        test,
        loss=F.cross_entropy,
        correct=lambda logits, classes: logits.argmax(dim=1) == classes,
        class_of=lambda classes: classes,
        function=name,
    )


def without_class(data: DataSet, removed: int) -> DataSet:
    """The same data whose training part lacks one class; the test part keeps it, so that its loss can be seen.

    Raises:
        TaskError: If no training example has that class, or all have it.
    """
    kept = data.train.targets != removed
    if kept.all() or not kept.any():
        raise TaskError(
            f"class {removed} must be one of several; the classes are {data.train.targets.unique().tolist()}"
        )
    return DataSet(data.train[kept], data.test)


def _one_digit(name: str, side: int, data: DataSet, batch_size: int) -> Task:
    # Partials of top-level functions, not closures: a task must be able to travel to a worker in another process.
    return Task(
        name,
        data.train.batches(batch_size),
        data.test.batches(batch_size),
        loss=partial(_side_loss, side=side),
        correct=partial(_side_correct, side=side),
        class_of=partial(_side_label, side=side),
        function=f"name {name} digit",
    )


def _both_loss(logits: Logits, labels: Labels) -> Float[Tensor, ""]:
    return _side_loss(logits, labels, LEFT) + _side_loss(logits, labels, RIGHT)


def _both_correct(logits: Logits, labels: Labels) -> Bool[Tensor, " examples"]:
    return (logits.reshape(-1, 2, N_DIGITS).argmax(dim=2) == labels).all(dim=1)


def _side_loss(logits: Logits, labels: Labels, side: int) -> Float[Tensor, ""]:
    return F.cross_entropy(_side(logits, side), _side_label(labels, side))


def _side_correct(logits: Logits, labels: Labels, side: int) -> Bool[Tensor, " examples"]:
    return _side(logits, side).argmax(dim=1) == _side_label(labels, side)


def _side_label(labels: Labels, side: int) -> Int[Tensor, " examples"]:
    return labels[:, side]


def _side(logits: Logits, side: int) -> Float[Tensor, "examples 10"]:
    return logits[:, N_DIGITS * side : N_DIGITS * (side + 1)]
