"""What are random groups of the same sizes, to hold a grouping of weights against?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from modscope.errors import MaskError
from modscope.masks.layout import Granularity, Layout, LogitPerGroup, group_of_units, layout_of, needs_wiring
from modscope.partition.partition import Partition
from modscope.randomness import numbered
from modscope.wiring.wiring import Wiring

_OF_UNITS = ("head", "layer", "block")  # groups of units; the others are groups of weights


@dataclass(frozen=True, eq=False)
class RandomGroups:
    """A granularity: groups as many and as large as another's, but random. What a grouping must beat to mean anything.

    Rows, columns, units and groups given by hand become random sets of weights: in every tensor the places of the
    weights are shuffled, so a group has as many weights in each tensor as before, and two that crossed in one weight
    still do. Heads, layers, blocks and clusters become random sets of units, shuffled within each unit group, or
    across groups where every group is of one label anyway (layers, blocks).

    Args:
        like: The granularity whose sizes are kept; any but "weight", whose groups of one are random already.
        seed: Draws the groups; the same seed gives the same groups.

    Raises:
        MaskError: If `like` is "weight" or unknown.
    """

    like: Granularity
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.like, str) and self.like == "weight":
            raise MaskError("single weights have no grouping to shuffle; take rows, units, clusters, ...")
        needs_wiring(self.like)  # refuses unknown names

    def __str__(self) -> str:
        what = self.like if isinstance(self.like, str) else "clusters" if isinstance(self.like, Partition) else "groups"
        return f"random groups like {what}"

    @property
    def needs_wiring(self) -> bool:
        """Whether the wiring must be known."""
        return needs_wiring(self.like)

    def layout(self, parameters: Mapping[str, nn.Parameter], wiring: Wiring | None) -> LogitPerGroup:
        """How the logits lie."""
        rng = numbered(self.seed, "random groups")
        if wiring is not None and isinstance(self.like, str | Partition) and self._is_of_units:
            shuffled = Partition(shuffled_labels(group_of_units(self.like, wiring), wiring.group_of, rng))
            return _grouped(layout_of(shuffled, parameters, wiring))
        return with_shuffled_places(_grouped(layout_of(self.like, parameters, wiring)), rng)

    @property
    def _is_of_units(self) -> bool:
        return isinstance(self.like, Partition) or self.like in _OF_UNITS


def shuffled_labels(
    labels: Int[np.ndarray, " units"], group_of: Int[np.ndarray, " units"], rng: np.random.Generator
) -> Int[np.ndarray, " units"]:
    """Labels dealt anew to the units that have one, within each unit group; across if no group has two labels."""
    labelled = np.flatnonzero(labels >= 0)
    within = [labelled[group_of[labelled] == group] for group in np.unique(group_of[labelled])]
    has_choice = any(len(np.unique(labels[units])) > 1 for units in within)
    shuffled = labels.copy()
    for units in within if has_choice else [labelled]:
        shuffled[units] = labels[rng.permutation(units)]
    return shuffled


def with_shuffled_places(layout: LogitPerGroup, rng: np.random.Generator) -> LogitPerGroup:
    """The layout with the places of each tensor's weights shuffled; all its arrays by the same permutation."""
    factors, learning = {}, {}
    for name, shape in layout.shapes.items():
        order = torch.from_numpy(rng.permutation(shape.numel()))
        factors[name] = tuple(_permuted(groups, shape, order) for groups in layout.factors[name])
        learning[name] = tuple(_permuted(groups, shape, order) for groups in layout.learning[name])
    return LogitPerGroup(layout.n_groups, factors, learning, layout.shapes)


def _permuted(groups: Tensor, shape: torch.Size, order: Tensor) -> Tensor:
    return groups.expand(shape).reshape(-1)[order].view(shape)


def _grouped(layout: Layout) -> LogitPerGroup:
    if not isinstance(layout, LogitPerGroup):
        raise MaskError(f"there are no groups to shuffle: {type(layout).__name__} has a logit for every weight")
    return layout
