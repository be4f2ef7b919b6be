"""Which tasks have an algorithm as their answer: modular addition, brackets, sorting?"""

from __future__ import annotations

import random

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modscope.data.examples import DataSet, Examples
from modscope.errors import TaskError
from modscope.randomness import Rng, generator
from modscope.tasks.task import Task

START, PADDING, END, OPEN, CLOSE = range(5)  # the tokens of the brackets task
Logits = Float[Tensor, "examples positions outputs"]


def modular_sums(modulus: int = 113, *, train_share: float = 0.3, seed: int = 1) -> DataSet:
    """Every pair a, b with its sum modulo `modulus`: tokens (a, b, modulus), target a + b.

    Args:
        modulus: Numbers are 0 to modulus - 1; the token after them is the equals sign.
        train_share: Share of the pairs to train on, rounded down.
        seed: Of Python's own shuffle, which the published network's pairs come from.

    Raises:
        TaskError: If one of the splits would be empty.

    Source: Nanda et al. 2023.
    """
    pairs = [(a, b, modulus) for a in range(modulus) for b in range(modulus)]
    random.Random(seed).shuffle(pairs)
    n_train = int(train_share * len(pairs))
    if not 0 < n_train < len(pairs):
        raise TaskError(f"both splits need pairs, got {n_train} of {len(pairs)} to train on; change train_share")
    tokens = torch.tensor(pairs)
    examples = Examples(tokens, (tokens[:, 0] + tokens[:, 1]) % modulus)
    return DataSet(examples[:n_train], examples[n_train:])


def modular_addition(data: DataSet, *, modulus: int = 113, batch_size: int = 4096) -> Task:
    """Add two numbers modulo `modulus`, read at the last position. The loss is computed in 64 bits: it gets tiny."""

    def loss(logits: Logits, sums: Int[Tensor, " examples"]) -> Float[Tensor, ""]:
        return F.cross_entropy(logits[:, -1, :modulus].double(), sums)

    def correct(logits: Logits, sums: Int[Tensor, " examples"]) -> Bool[Tensor, " examples"]:
        return logits[:, -1, :modulus].argmax(dim=1) == sums

    train, test = (examples.batches(batch_size) for examples in (data.train, data.test))
    return Task("modular addition", train, test, loss=loss, correct=correct, class_of=lambda sums: sums)


def bracket_strings(rng: Rng, n_strings: int, *, n_positions: int = 42, balanced_share: float = 0.7) -> Examples:
    """Strings of brackets as tokens (start, brackets, end, padding), target 1 where they are balanced.

    Lengths are even and uniform. A balanced string is uniform among those of its length; of the others, half are a
    balanced one with two brackets swapped, half are in random order, and all have as many open as closed brackets.

    Args:
        rng: Draws the strings.
        n_strings: How many.
        n_positions: Length of the token rows.
        balanced_share: Share of balanced strings.
    """
    rng = generator(rng)
    rows = torch.full((n_strings, n_positions), PADDING)
    targets = rng.random(n_strings) < balanced_share
    for row, wanted in zip(rows, targets, strict=True):
        n_pairs = int(rng.integers(1, n_positions // 2))
        brackets = balanced_string(n_pairs, rng) if wanted else _unbalanced(n_pairs, rng)
        row[0] = START
        row[1 : 1 + 2 * n_pairs] = torch.from_numpy(np.where(brackets > 0, OPEN, CLOSE))
        row[1 + 2 * n_pairs] = END
    return Examples(rows, torch.from_numpy(targets).long())


def balanced_brackets(train: Examples, test: Examples, *, batch_size: int = 500) -> Task:
    """Tell whether brackets are balanced, read at position 0."""

    def loss(logits: Logits, targets: Int[Tensor, " examples"]) -> Float[Tensor, ""]:
        return F.cross_entropy(logits[:, 0], targets)

    def correct(logits: Logits, targets: Int[Tensor, " examples"]) -> Bool[Tensor, " examples"]:
        return logits[:, 0].argmax(dim=1) == targets

    return Task(
        "balanced brackets",
        train.batches(batch_size),
        test.batches(batch_size),
        loss=loss,
        correct=correct,
        class_of=lambda targets: targets,
    )


def number_lists(
    rng: Rng, n_lists: int, *, length: int = 10, n_numbers: int = 51, may_repeat: bool = False
) -> Examples:
    """Lists of numbers as tokens (the list, a separator, the list in order); targets are the numbers in order.

    Args:
        rng: Draws the lists.
        n_lists: How many.
        length: Numbers in a list.
        n_numbers: Numbers are 0 to n_numbers - 1; the separator is n_numbers.
        may_repeat: Whether a number may occur twice in a list.

    Raises:
        TaskError: If there are not enough different numbers.
    """
    if length > n_numbers and not may_repeat:
        raise TaskError(f"there are no {length} different numbers below {n_numbers}; allow repeats, or shorter lists")
    rng = generator(rng)
    if may_repeat:
        lists = rng.integers(n_numbers, size=(n_lists, length))
    else:
        lists = rng.random((n_lists, n_numbers)).argsort(axis=1)[:, :length]
    ordered = np.sort(lists, axis=1)
    tokens = np.concatenate([lists, np.full((n_lists, 1), n_numbers), ordered], axis=1)
    return Examples(torch.from_numpy(tokens), torch.from_numpy(ordered))


def sorting(train: Examples, test: Examples, *, batch_size: int = 500) -> Task:
    """Sort a list: after the separator, every position names the next number. Correct: the share of numbers right."""

    def predicted(logits: Logits, ordered: Int[Tensor, "examples length"]) -> Float[Tensor, "examples length outputs"]:
        length = ordered.shape[1]
        return logits[:, length : 2 * length]

    def loss(logits: Logits, ordered: Int[Tensor, "examples length"]) -> Float[Tensor, ""]:
        return F.cross_entropy(predicted(logits, ordered).flatten(0, 1), ordered.flatten())

    def correct(logits: Logits, ordered: Int[Tensor, "examples length"]) -> Float[Tensor, " examples"]:
        return (predicted(logits, ordered).argmax(dim=2) == ordered).float().mean(dim=1)

    return Task("sorting", train.batches(batch_size), test.batches(batch_size), loss=loss, correct=correct)


def is_balanced(brackets: Int[np.ndarray, " brackets"]) -> bool:
    """Whether a row of +1 (open) and -1 (closed) never closes more than it has opened, and closes all."""
    depth = brackets.cumsum()
    return bool(depth[-1] == 0 and depth.min() >= 0)


def balanced_string(n_pairs: int, rng: np.random.Generator) -> Int[np.ndarray, " brackets"]:
    """A balanced row of +1 (open) and -1 (closed), uniform among those of its length.

    Source: the cycle lemma (Dvoretzky & Motzkin 1947): of n + 1 opened and n closed brackets in a circle, exactly one
    rotation stays above zero; without its first bracket it is balanced.
    """
    circle = rng.permutation(np.repeat([1, -1], [n_pairs + 1, n_pairs]))
    lowest_last = len(circle) - 1 - int(circle.cumsum()[::-1].argmin())
    return np.roll(circle, -lowest_last - 1)[1:]


def _unbalanced(n_pairs: int, rng: np.random.Generator) -> Int[np.ndarray, " brackets"]:
    while True:
        brackets = balanced_string(n_pairs, rng)
        if rng.random() < 0.5:
            opened, closed = (rng.choice(np.flatnonzero(brackets == kind)) for kind in (1, -1))
            brackets[[opened, closed]] = brackets[[closed, opened]]
        else:
            brackets = rng.permutation(brackets)
        if not is_balanced(brackets):
            return brackets
