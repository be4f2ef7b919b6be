"""Which weights are taken away during training, and when?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from modscope.errors import MaskError


@dataclass(frozen=True)
class MagnitudePruning:
    """Weights are removed smallest first, layer by layer, at a rate that falls with time.

    After `end` every weight tensor keeps the share `final_density`. Between `begin` and `end` the removed share is
    s(t) = s_final + (s_begin - s_final) (1 - (t - begin) / (end - begin))^power. Biases and norms are not pruned.

    Args:
        final_density, initial_density: Share of each tensor that is kept after `end`, and at `begin`.
        begin, end: Steps at which pruning starts and is complete.
        every: Steps between two removals.
        power: 3 is the usual cubic schedule; 1 removes at a constant rate.

    Raises:
        MaskError: If a density is not in (0, 1], they grow, or the steps are not in order.

    Source: Zhu & Gupta 2017, equation 1; the settings of Filan et al. 2021 are `initial_density=.5, begin=0`.
    """

    final_density: float
    begin: int
    end: int
    every: int = 10
    initial_density: float = 1.0
    power: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.final_density <= self.initial_density <= 1:
            raise MaskError(
                "densities must fall within (0, 1], got "
                f"initial_density={self.initial_density}, final_density={self.final_density}"
            )
        if not 0 <= self.begin <= self.end or self.every < 1:
            raise MaskError(
                f"pruning needs 0 <= begin <= end and every >= 1, got begin={self.begin}, end={self.end}, "
                f"every={self.every}"
            )

    def density(self, step: int) -> float:
        """Share of each weight tensor that is kept after `step` steps."""
        if step < self.begin:
            return 1.0
        if step >= self.end:
            return self.final_density
        left = 1 - (step - self.begin) / (self.end - self.begin)
        return self.final_density + (self.initial_density - self.final_density) * float(left**self.power)

    def is_due(self, step: int) -> bool:
        """Whether weights are removed after `step` steps."""
        in_turn = self.begin <= step < self.end and (step - self.begin) % self.every == 0
        return in_turn or step == self.end


def largest(model: nn.Module, density: float) -> dict[str, Bool[Tensor, "..."]]:
    """For every weight tensor (two axes or more) of the model, the share `density` of its entries that are largest.

    At least one entry of each is kept. The number is exact: of equal sizes at the border some are kept.
    """
    return {
        name: _largest_entries(parameter.detach().abs(), density)
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2
    }


@torch.no_grad()
def remove(model: nn.Module, kept: Mapping[str, Bool[Tensor, "..."]]) -> None:
    """Set every entry that is not kept to exactly 0, in place."""
    parameters = dict(model.named_parameters())
    for name, keep in kept.items():
        parameters[name].masked_fill_(~keep, 0.0)


def _largest_entries(sizes: Tensor, density: float) -> Bool[Tensor, "..."]:
    n_kept = max(1, round(density * sizes.numel()))
    keep = torch.zeros(sizes.numel(), dtype=torch.bool, device=sizes.device)
    keep[sizes.flatten().topk(n_kept, sorted=False).indices] = True
    return keep.reshape(sizes.shape)
