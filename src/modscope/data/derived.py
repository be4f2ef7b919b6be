"""Which data sets are made from others, or from nothing, to see what makes a network clusterable?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from modscope.data.examples import DataSet, Examples
from modscope.errors import DataError
from modscope.randomness import Rng, generator

SIDE, N_CLASSES = 28, 10
_Join: TypeAlias = Callable[[Tensor, Tensor], Tensor]
_MONOMIALS = [(a, b) for a in range(3) for b in range(3)]  # powers of x1 and x2


def lines(rng: Rng, *, n_train: int = 60_000, n_test: int = 10_000) -> DataSet:
    """Black pictures with 1 to 10 white vertical lines in different columns; the class is the number of lines - 1.

    Source: Filan et al. 2021, data set LINE.
    """
    rng = generator(rng)
    return DataSet(_lines(rng, n_train), _lines(rng, n_test))


def noise(rng: Rng, *, n_train: int = 60_000, n_test: int = 10_000) -> DataSet:
    """Pictures of uniform noise with random classes: there is nothing to learn but the examples themselves.

    Source: Filan et al. 2021, data set RANDOM.
    """
    rng = generator(rng)
    return DataSet(_noise(rng, n_train), _noise(rng, n_test))


def halves(data: DataSet, rng: Rng, *, same_class: bool = False) -> DataSet:
    """Two random pictures, each squeezed to half its width, side by side; the class is the sum of both modulo 10.

    Args:
        data: Square pictures of ten classes.
        rng: Pairs them.
        same_class: Pair pictures of one class, which is then the class of both.

    Source: Filan et al. 2021, data sets halves and halves_same.
    """
    rng = generator(rng)
    return DataSet(*(_paired(part, rng, same_class, _side_by_side) for part in (data.train, data.test)))


def stacked(data: DataSet, rng: Rng, *, same_class: bool = False) -> DataSet:
    """Two random pictures as the channels of one; classes as in `halves`.

    Source: Filan et al. 2021, data sets stacked and stacked_same.
    """
    rng = generator(rng)
    return DataSet(*(_paired(part, rng, same_class, _as_channels) for part in (data.train, data.test)))


def mixed(first: DataSet, second: DataSet, rng: Rng) -> DataSet:
    """The examples of both, shuffled; both use the same ten classes.

    Raises:
        DataError: If their pictures have different shapes.

    Source: Filan et al. 2021, mixed data sets.
    """
    rng = generator(rng)
    parts = ((first.train, second.train), (first.test, second.test))
    return DataSet(*(_shuffled(_joined(ours, theirs), rng) for ours, theirs in parts))


def separated(first: DataSet, second: DataSet, rng: Rng) -> DataSet:
    """Classes 0 to 4 of the first and 5 to 9 of the second, shuffled.

    Raises:
        DataError: If their pictures have different shapes.

    Source: Filan et al. 2021, separated mixtures.
    """
    rng = generator(rng)
    half = N_CLASSES // 2
    parts = ((first.train, second.train), (first.test, second.test))
    return DataSet(
        *(_shuffled(_joined(ours[ours.targets < half], theirs[theirs.targets >= half]), rng) for ours, theirs in parts)
    )


def polynomials(rng: Rng, *, n_train: int = 60_000, n_test: int = 10_000) -> DataSet:
    """Points x of the plane, standard normal, and the values of all 512 sums of some of the monomials x1^a x2^b.

    a and b are 0, 1 or 2, so there are nine monomials; output i adds those whose bit is set in i, lowest bit first.

    Source: Filan et al. 2021, data set poly.
    """
    rng = generator(rng)
    return DataSet(_polynomials(rng, n_train), _polynomials(rng, n_test))


def _lines(rng: np.random.Generator, n_examples: int) -> Examples:
    classes = rng.integers(N_CLASSES, size=n_examples)
    order = rng.random((n_examples, SIDE)).argsort(axis=1).argsort(axis=1)  # rank of each column in a random order
    is_white = order <= classes[:, None]
    pictures = np.broadcast_to(255 * is_white[:, None, None, :], (n_examples, 1, SIDE, SIDE)).astype(np.uint8)
    return Examples(torch.from_numpy(pictures), torch.from_numpy(classes))


def _noise(rng: np.random.Generator, n_examples: int) -> Examples:
    pictures = rng.integers(256, size=(n_examples, 1, SIDE, SIDE), dtype=np.uint8)
    return Examples(torch.from_numpy(pictures), torch.from_numpy(rng.integers(N_CLASSES, size=n_examples)))


def _paired(examples: Examples, rng: np.random.Generator, same_class: bool, joined: _Join) -> Examples:
    left, right = rng.permutation(len(examples)), rng.permutation(len(examples))
    classes = examples.targets.numpy()
    if same_class:  # both orders sorted by class, so that places agree; then places shuffled
        place = rng.permutation(len(examples))
        left, right = (order[classes[order].argsort(kind="stable")][place] for order in (left, right))
        targets = classes[left]
    else:
        targets = (classes[left] + classes[right]) % N_CLASSES
    pictures = joined(examples.inputs[left], examples.inputs[right])
    return Examples(pictures, torch.from_numpy(targets))


def _side_by_side(left: Tensor, right: Tensor) -> UInt8[Tensor, "examples channels side side"]:
    return torch.cat([_squeezed(left), _squeezed(right)], dim=3)


def _as_channels(left: Tensor, right: Tensor) -> UInt8[Tensor, "examples channels side side"]:
    return torch.cat([left, right], dim=1)


def _squeezed(pictures: Tensor) -> UInt8[Tensor, "examples channels height half"]:
    """Pictures of half the width; a pixel is the mean of two neighbours."""
    return F.avg_pool2d(pictures.float(), (1, 2)).round().to(torch.uint8)


def _joined(first: Examples, second: Examples) -> Examples:
    if first.inputs.shape[1:] != second.inputs.shape[1:]:
        raise DataError(
            f"pictures must have one shape to be mixed, got {tuple(first.inputs.shape[1:])} and "
            f"{tuple(second.inputs.shape[1:])}"
        )
    return Examples(torch.cat([first.inputs, second.inputs]), torch.cat([first.targets, second.targets]))


def _shuffled(examples: Examples, rng: np.random.Generator) -> Examples:
    return examples[torch.from_numpy(rng.permutation(len(examples)))]


def _polynomials(rng: np.random.Generator, n_examples: int) -> Examples:
    points = rng.standard_normal((n_examples, 2)).astype(np.float32)
    monomials = np.stack([points[:, 0] ** a * points[:, 1] ** b for a, b in _MONOMIALS], axis=1)
    return Examples(torch.from_numpy(points), torch.from_numpy(monomials @ _subsets().T))


def _subsets() -> Float[np.ndarray, "sums monomials"]:
    numbers = np.arange(2 ** len(_MONOMIALS))
    return ((numbers[:, None] >> np.arange(len(_MONOMIALS))) & 1).astype(np.float32)
