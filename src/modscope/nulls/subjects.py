"""What can be randomised?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int
from torch import Tensor

from modscope.errors import StatisticsError
from modscope.graph.unit_graph import UnitGraph
from modscope.wiring.wiring import Wiring


@dataclass(frozen=True, eq=False)
class LabelledUnits:
    """Units with a label each, and the groups that labels may move within.

    Raises:
        StatisticsError: If labels and groups are not one per unit.
    """

    labels: Int[np.ndarray, " units"]  # -1 = left out, and stays so
    group_of: Int[np.ndarray, " units"]  # unit group; or finer strata, as group x decile of degree

    def __post_init__(self) -> None:
        if self.labels.shape != self.group_of.shape or self.labels.ndim != 1:
            raise StatisticsError(
                f"labels and groups must be one per unit, got shapes {self.labels.shape} and {self.group_of.shape}"
            )


@dataclass(frozen=True, eq=False)
class SizedMask:
    """A mask with the weights that it masks, so that a random one can keep as many large weights.

    Raises:
        StatisticsError: If a mask has no weight, or another shape.
    """

    mask: Mapping[str, Tensor]  # parameter -> bool, True = kept
    weights: Mapping[str, Tensor]
    eligible: Mapping[str, Tensor] = field(default_factory=dict)  # bool; entries outside stay as they are

    def __post_init__(self) -> None:
        for name, mask in self.mask.items():
            for what, others in (("weight", self.weights), ("eligible entries", self.eligible)):
                if name in others and others[name].shape != mask.shape:
                    raise StatisticsError(
                        f"mask '{name}' has shape {tuple(mask.shape)}, its {what} {tuple(others[name].shape)}"
                    )
            if name not in self.weights:
                raise StatisticsError(f"mask '{name}' has no weight; there are {', '.join(self.weights) or 'none'}")


SUBJECT_TYPES: dict[str, tuple[type, ...]] = {
    "weights": (Wiring, UnitGraph),
    "graph": (UnitGraph,),
    "labels": (LabelledUnits,),
    "masks": (SizedMask, Mapping),
}
