"""Which examples does a data set hold, and in which batches are they read?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from modscope.errors import DataError

Encode: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Examples:
    """Examples held in memory; the first axis of `inputs` and of `targets` counts them.

    Raises:
        DataError: If the two disagree on the number of examples.
    """

    inputs: Tensor
    targets: Tensor

    def __post_init__(self) -> None:
        if len(self.inputs) != len(self.targets):
            raise DataError(
                f"inputs and targets must hold the same number of examples, got {len(self.inputs)} inputs "
                f"and {len(self.targets)} targets"
            )

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, chosen: Tensor | slice) -> Examples:
        return Examples(self.inputs[chosen], self.targets[chosen])

    def batches(self, size: int = 500, *, encode: Encode | None = None) -> Batches:
        """The same examples in batches of `size`, in order; the last batch may be smaller.

        Args:
            size: Examples in a batch.
            encode: Turns the stored inputs of a batch into those the model takes, such as bytes into normalised
                pixels, or digits into one-hot vectors: what is held in memory stays small.
        """
        return Batches(self, size, encode)


@dataclass(frozen=True, eq=False)
class Batches:
    """Examples in batches: what a Task iterates over, as often as it likes.

    Raises:
        DataError: If the size is not positive.
    """

    examples: Examples
    size: int
    encode: Encode | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise DataError(f"a batch needs at least one example, got size {self.size}")

    def __len__(self) -> int:
        return -(-len(self.examples) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.examples), self.size):
            batch = self.examples[start : start + self.size]
            yield self.encoded(batch.inputs), batch.targets

    def encoded(self, inputs: Tensor) -> Tensor:
        """Stored inputs as the model takes them."""
        return inputs if self.encode is None else self.encode(inputs)


@dataclass(frozen=True, eq=False)
class DataSet:
    """Training and test examples that share no image, sentence or sum unless the reader says so."""

    train: Examples
    test: Examples
