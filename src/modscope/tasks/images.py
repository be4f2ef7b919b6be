"""Which tasks are about pictures?"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modscope.data.digits import LEFT, RIGHT
from modscope.data.examples import DataSet
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

    def loss(logits: Logits, labels: Labels) -> Float[Tensor, ""]:
        return _side_loss(logits, labels, LEFT) + _side_loss(logits, labels, RIGHT)

    def correct(logits: Logits, labels: Labels) -> Bool[Tensor, " examples"]:
        return (logits.reshape(-1, 2, N_DIGITS).argmax(dim=2) == labels).all(dim=1)

    return Task(
        "both",
        data.train.batches(batch_size),
        data.test.batches(batch_size),
        loss=loss,
        correct=correct,
        function="name both digits",
    )


def _one_digit(name: str, side: int, data: DataSet, batch_size: int) -> Task:
    def loss(logits: Logits, labels: Labels) -> Float[Tensor, ""]:
        return _side_loss(logits, labels, side)

    def correct(logits: Logits, labels: Labels) -> Bool[Tensor, " examples"]:
        return _side(logits, side).argmax(dim=1) == labels[:, side]

    return Task(
        name,
        data.train.batches(batch_size),
        data.test.batches(batch_size),
        loss=loss,
        correct=correct,
        class_of=lambda labels: labels[:, side],
        function=f"name {name} digit",
    )


def _side(logits: Logits, side: int) -> Float[Tensor, "examples 10"]:
    return logits[:, N_DIGITS * side : N_DIGITS * (side + 1)]


def _side_loss(logits: Logits, labels: Labels, side: int) -> Float[Tensor, ""]:
    return F.cross_entropy(_side(logits, side), labels[:, side])
