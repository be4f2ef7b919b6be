"""What is the network that adds two pairs of numbers, one after the other?"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PairByPair(nn.Module):
    """A network that is shown each of two pairs alone, the other's inputs at zero, and answers in its own half.

    Inputs and outputs have two halves, one per pair. So both passes may use the same weights, but the two pairs
    come in, and their answers go out, in different places.

    Source: Csordás et al. 2021, the feed-forward network of double addition.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pairs: Float[Tensor, "examples inputs"]) -> Float[Tensor, "examples outputs"]:
        """The answers to both pairs, side by side."""
        first, second = pairs.chunk(2, dim=1)
        one_at_a_time = torch.cat(  # twice as many examples: the first pair alone, then the second alone
            [torch.cat([first, torch.zeros_like(second)], dim=1), torch.cat([torch.zeros_like(first), second], dim=1)]
        )
        to_first, to_second = self.network(one_at_a_time).chunk(2, dim=0)
        return torch.cat([to_first.chunk(2, dim=1)[0], to_second.chunk(2, dim=1)[1]], dim=1)
