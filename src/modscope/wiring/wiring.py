"""What are the units of a network, and which weight joins which?"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from html import escape
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


@dataclass(frozen=True, eq=False, repr=False)
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

    @cached_property
    def n_weights_of(self) -> Int[np.ndarray, " groups"]:
        """Number of weights that write each group."""
        n_weights = np.zeros(len(self.groups), dtype=np.int64)
        for connection in self.connections:
            if connection.kind == "weight" and connection.targets.size:
                per_entry = connection.weight.numel() // connection.targets.size
                groups = self.group_of[connection.targets[connection.targets >= 0]]
                n_weights += per_entry * np.bincount(groups, minlength=len(self.groups))
        return n_weights

    def to_frame(self) -> pl.DataFrame:
        """One row per unit group: group, kind, depth, units, weights (their number), and the parameters they are in."""
        import polars as pl

        schema = {
            "group": pl.Utf8, "kind": pl.Utf8, "depth": pl.Int64, "units": pl.Int64, "weights": pl.Int64,
            "parameters": pl.Utf8,
        }  # fmt: skip
        return pl.DataFrame(self._rows(), schema=schema, orient="row")

    def _rows(self) -> list[tuple[str, str, int, int, int, str]]:
        return [
            (group.name, group.kind, group.depth, group.size, n_weights, ", ".join(self.parameters_of[group.name]))
            for group, n_weights in zip(self.groups, self.n_weights_of.tolist(), strict=True)
        ]

    def __repr__(self) -> str:
        """A table of the groups, then the warnings."""
        rows = [tuple(str(entry) for entry in row) for row in self._rows()]
        table = [("group", "kind", "depth", "units", "weights", "parameters"), *rows[:N_ROWS]]
        widths = [max(len(row[column]) for row in table) for column in range(5)]
        lines = ["  ".join([*(f"{row[i]:<{widths[i]}}" for i in range(5)), _shortened(row[5])]) for row in table]
        more = [f"... and {len(rows) - N_ROWS} groups more"] if len(rows) > N_ROWS else []
        warnings = [f"warning: {warning}" for warning in self.warnings]
        return "\n".join([self._summary(), *(line.rstrip() for line in lines), *more, *warnings])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("group", "kind", "depth", "units", "weights", "parameters"))
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(str(entry))}</td>" for entry in row) + "</tr>" for row in self._rows()
        )
        warnings = "".join(f"<li>{escape(warning)}</li>" for warning in self.warnings)
        return f"<p>{self._summary()}</p><table><tr>{head}</tr>{body}</table><ul>{warnings}</ul>"

    def _summary(self) -> str:
        n_connections = sum(connection.kind == "weight" for connection in self.connections)
        return f"Wiring: {self.n_units:,} units in {len(self.groups)} groups, {n_connections} connections"


N_ROWS = 60  # that a printed wiring shows


def _shortened(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."
