"""Which tasks compute with two-digit numbers: two additions at once, addition or multiplication?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from modscope.data.examples import DataSet, Examples
from modscope.errors import TaskError
from modscope.randomness import Rng, generator
from modscope.tasks.task import Task

Operation: TypeAlias = Literal["add", "mul"]
OPERATIONS: tuple[Operation, ...] = ("add", "mul")  # in this order in the one-hot inputs
N_TRAIN, N_TEST = 1_000_000, 10_000
N_NUMBERS = 100  # numbers are 0 to 99, results modulo 100: two digits each, the smaller place first
Logits = Float[Tensor, "examples outputs"]  # ten for each digit of the results
Digits = Int[Tensor, "examples digits"]


def double_addition(rng: Rng, *, n_train: int = N_TRAIN, n_test: int = N_TEST) -> DataSet:
    """Two pairs of numbers, to be added modulo 100 each; inputs and targets are digits (see `one_hot_digits`).

    Inputs are (first pair: a, b, second pair: a, b), eight digits; targets are the digits of the two sums, four.

    Args:
        rng: Draws the numbers, all independent and uniform.
        n_train: Training examples.
        n_test: Test examples. There are 10^8 possible ones, so few of them are in the training data too.

    Raises:
        TaskError: If a split would be empty.

    Source: Csordás et al. 2021, double addition.
    """
    rng = generator(rng)

    def examples(n_examples: int) -> Examples:
        numbers = rng.integers(N_NUMBERS, size=(n_examples, 2, 2))  # (examples, pair, number)
        return _examples(_digits(numbers), numbers.sum(axis=2))

    return _splits(examples, n_train, n_test)


def first_addition(data: DataSet, *, batch_size: int = 1000) -> Task:
    """Add the first pair: outputs 0 to 19."""
    return _digits_task("first pair", "addition", data, batch_size, slice(0, 2))


def second_addition(data: DataSet, *, batch_size: int = 1000) -> Task:
    """Add the second pair: outputs 20 to 39."""
    return _digits_task("second pair", "addition", data, batch_size, slice(2, 4))


def both_additions(data: DataSet, *, batch_size: int = 1000) -> Task:
    """Add both pairs, which is what the network is trained for; right if both sums are."""
    return _digits_task("both pairs", "double addition", data, batch_size, slice(0, 4))


def add_or_multiply(rng: Rng, *, n_train: int = N_TRAIN, n_test: int = N_TEST) -> DataSet:
    """Two numbers and an operation; inputs are the numbers' digits and the operation, targets the result's digits.

    Inputs are four digits and 0 (add) or 1 (multiply), results are modulo 100. There are 20,000 different inputs, so
    test examples are in the training data too, as in the source.

    Args:
        rng: Draws numbers and operations, all independent and uniform.
        n_train: Training examples.
        n_test: Test examples.

    Raises:
        TaskError: If a split would be empty.

    Source: Csordás et al. 2021, addition and multiplication.
    """
    rng = generator(rng)

    def examples(n_examples: int) -> Examples:
        numbers = rng.integers(N_NUMBERS, size=(n_examples, 2))
        operation = rng.integers(len(OPERATIONS), size=(n_examples, 1))
        results = np.where(operation == 0, numbers.sum(axis=1, keepdims=True), numbers.prod(axis=1, keepdims=True))
        return _examples(np.concatenate([_digits(numbers), operation], axis=1), results)

    return _splits(examples, n_train, n_test)


def one_operation(data: DataSet, operation: Operation, *, batch_size: int = 1000) -> Task:
    """Compute the results of one of the two operations; examples of the other are left out.

    Raises:
        TaskError: If there is no such operation, or no example of it.
    """
    if operation not in OPERATIONS:
        raise TaskError(f"the operations are {', '.join(OPERATIONS)}; got {operation!r}")
    chosen = DataSet(_only(data.train, operation), _only(data.test, operation))
    return _digits_task(operation, operation, chosen, batch_size, slice(0, 2))


def both_operations(data: DataSet, *, batch_size: int = 1000) -> Task:
    """Compute the result of whichever operation is asked for, which is what the network is trained for."""
    return _digits_task("add and mul", "add and mul", data, batch_size, slice(0, 2))


def one_hot_digits(digits: UInt8[Tensor, "examples digits"]) -> Float[Tensor, "examples inputs"]:
    """Ten inputs for every digit; where their number is odd the last one is an operation and has two inputs."""
    n_digits = digits.shape[1] // 2 * 2
    inputs = F.one_hot(digits[:, :n_digits].long(), 10).flatten(1)
    if digits.shape[1] > n_digits:
        inputs = torch.cat([inputs, F.one_hot(digits[:, -1].long(), len(OPERATIONS))], dim=1)
    return inputs.float()


def _digits_task(name: str, function: str, data: DataSet, batch_size: int, places: slice) -> Task:
    """Name the digits of the results at some places; right if all of them are."""

    def by_digit(logits: Logits) -> Float[Tensor, "examples places 10"]:
        return logits.reshape(len(logits), -1, 10)[:, places]

    def loss(logits: Logits, digits: Digits) -> Float[Tensor, ""]:
        return F.cross_entropy(by_digit(logits).flatten(0, 1), digits[:, places].flatten())

    def correct(logits: Logits, digits: Digits) -> Bool[Tensor, " examples"]:
        return (by_digit(logits).argmax(dim=2) == digits[:, places]).all(dim=1)

    train, test = (examples.batches(batch_size, encode=one_hot_digits) for examples in (data.train, data.test))
    return Task(name, train, test, loss=loss, correct=correct, function=function)


def _examples(inputs: Int[np.ndarray, "examples inputs"], results: Int[np.ndarray, "examples results"]) -> Examples:
    targets = _digits(results % N_NUMBERS)
    return Examples(torch.from_numpy(inputs.astype(np.uint8)), torch.from_numpy(targets.astype(np.int64)))


def _splits(examples: Callable[[int], Examples], n_train: int, n_test: int) -> DataSet:
    if min(n_train, n_test) < 1:
        raise TaskError(f"both splits need at least one example, got n_train={n_train}, n_test={n_test}")
    return DataSet(examples(n_train), examples(n_test))


def _digits(numbers: Int[np.ndarray, "examples ..."]) -> Int[np.ndarray, "examples digits"]:
    """The two digits of each number, the ones before the tens, all side by side."""
    return np.stack([numbers % 10, numbers // 10], axis=-1).reshape(len(numbers), -1)


def _only(examples: Examples, operation: Operation) -> Examples:
    chosen = examples[examples.inputs[:, -1] == OPERATIONS.index(operation)]
    if not len(chosen):
        raise TaskError(f"none of the {len(examples)} examples asks for '{operation}'; draw more")
    return chosen
