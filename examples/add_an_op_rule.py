"""How do I teach modscope an operation of my own? One function: how do unit ids travel through it?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

import modscope as ms
from modscope.wiring.carry import Carry
from modscope.wiring.rules import rule
from modscope.wiring.values import Value


@torch.library.custom_op("example::swap_halves", mutates_args=())
def swap_halves(x: Tensor) -> Tensor:
    """The second half of the channels before the first: an operation that modscope has never seen."""
    return torch.cat(x.chunk(2, dim=1)[::-1], dim=1)


@swap_halves.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Swapping(nn.Module):
    """Two layers with the operation between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        """The layers, one after the other."""
        return self.last(torch.ops.example.swap_halves(self.first(x)))


# Without a rule nothing is guessed: the operation mixes all its inputs, and a warning names it.
without = ms.read_wiring(Swapping(), torch.zeros(1, 4))
print(*without.warnings, sep="\n")
assert any("swap_halves" in warning for warning in without.warnings)


@rule(torch.ops.example.swap_halves.default)
def ids_of_swapped_halves(_carry: Carry, value: Value) -> Value:
    """An operation that only moves entries about moves their ids in the same way."""
    return value.moved(lambda ids: torch.cat(ids.chunk(2, dim=1)[::-1], dim=1))


wiring = ms.read_wiring(Swapping(), torch.zeros(1, 4))
print(wiring.to_frame())
assert not wiring.warnings
