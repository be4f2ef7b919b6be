"""What are the units of a network, and which weight joins which?"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

if TYPE_CHECKING:
    import polars as pl

GroupKind = Literal["input", "hidden", "stream", "output"]
ConnectionKind = Literal["weight", "query_key"]


@dataclass(frozen=True)
class UnitGroup:
    """The units that one layer, or one residual stream, writes."""

    name: str
    kind: GroupKind
    unit_ids: Int[np.ndarray, " units"]
    depth: int  # steps from the inputs, for drawing

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.unit_ids)


@dataclass(frozen=True, eq=False)
class Connection:
    """A weight tensor with the ids of the units on its two sides.

    `sources` and `targets` broadcast to the shape of the *stored* parameter, -1 where an entry joins no unit.
    `source_scale` and `target_scale` broadcast to it too: what folded norms multiply a weight by (None: one).
    """

    parameter: str
    weight: Tensor
    sources: Int[np.ndarray, "..."]
    targets: Int[np.ndarray, "..."]
    layer: str
    kind: ConnectionKind = "weight"
    source_scale: Float[np.ndarray, "..."] | None = None
    target_scale: Float[np.ndarray, "..."] | None = None


@dataclass(frozen=True, eq=False)
class UnitParameter:
    """A bias, or the gain of a norm, with the unit of each of its entries (-1 = none)."""

    parameter: str
    kind: Literal["bias", "scale"]
    units: Int[np.ndarray, "..."]  # broadcasts to the stored parameter
    layer: str


@dataclass(frozen=True, eq=False)
class Wiring:
    """All units and connections of a network. Units are numbered 0 .. n_units - 1, group after group."""

    groups: tuple[UnitGroup, ...]
    connections: tuple[Connection, ...]
    unit_parameters: tuple[UnitParameter, ...] = ()
    warnings: tuple[str, ...] = ()
    groupings: dict[str, Int[np.ndarray, " units"]] = field(
        default_factory=dict
    )  # "head", "layer", "block" -> label per unit, -1 = none

    @cached_property
    def n_units(self) -> int:
        """Number of units in all groups."""
        return sum(group.size for group in self.groups)

    @cached_property
    def group_of(self) -> Int[np.ndarray, " units"]:
        """Index into `groups` of each unit."""
        group_of = np.empty(self.n_units, dtype=np.int64)
        for index, group in enumerate(self.groups):
            group_of[group.unit_ids] = index
        return group_of

    @cached_property
    def parameters_of(self) -> dict[str, tuple[str, ...]]:
        """The weights that write each group, by the group's name."""
        writes: dict[str, list[str]] = {group.name: [] for group in self.groups}
        for connection in self.connections:
            if connection.kind != "weight":
                continue
            units = connection.targets[connection.targets >= 0]
            for index in np.unique(self.group_of[units]).tolist():
                writes[self.groups[index].name].append(connection.parameter)
        return {name: tuple(dict.fromkeys(parameters)) for name, parameters in writes.items()}

    def to_frame(self) -> pl.DataFrame:
        """One row per unit group: name, kind, depth, units, and the parameters that write it."""
        import polars as pl

        return pl.DataFrame(
            {
                "group": [group.name for group in self.groups],
                "kind": [group.kind for group in self.groups],
                "depth": [group.depth for group in self.groups],
                "units": [group.size for group in self.groups],
                "parameters": [", ".join(self.parameters_of[group.name]) for group in self.groups],
            },
            schema={"group": pl.Utf8, "kind": pl.Utf8, "depth": pl.Int64, "units": pl.Int64, "parameters": pl.Utf8},
        )
