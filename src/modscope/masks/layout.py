"""Which logit decides about which weight? One each, or one for a row, a unit, a head, a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from modscope.errors import MaskError
from modscope.masks.sampling import Estimator, rao_blackwell
from modscope.partition.partition import Partition
from modscope.wiring.wiring import Wiring


@runtime_checkable
class Grouping(Protocol):
    """Groups that know themselves how their logits lie, such as `RandomGroups`."""

    @property
    def needs_wiring(self) -> bool:
        """Whether the wiring must be known."""
        ...

    def layout(self, parameters: Mapping[str, nn.Parameter], wiring: Wiring | None) -> Layout:
        """How the logits lie."""
        ...


# A name of NAMED_GRANULARITIES, a Partition (one logit per cluster), group numbers per entry of a parameter,
# broadcastable to it, -1 = always kept, or a Grouping.
Granularity: TypeAlias = str | Partition | Mapping[str, Tensor] | Grouping
_BOTH = ("sources", "targets")
_SIDES = {"row": ("targets",), "column": ("sources",)}  # which of a weight's units decide about it
NAMED_GRANULARITIES = ("weight", "row", "column", "unit", "head", "layer", "block")


class Layout(Protocol):
    """Logits, and how they join the parameters."""

    def initial(self, logit: float, device: torch.device) -> list[Tensor]:
        """New logits, all of one value."""
        ...

    def masked(
        self,
        logits: list[Tensor],
        weights: Mapping[str, Tensor],
        estimator: Estimator,
        n_copies: int,
        generator: torch.Generator,
        progress: float,
    ) -> list[dict[str, Tensor]]:
        """Masked copies of the weights that `weights` holds, each by parameter name."""
        ...

    def spread(self, logits: list[Tensor]) -> dict[str, Tensor]:
        """The logit of every weight: a weight that several logits decide about has the smallest of them."""
        ...


@dataclass(frozen=True)
class LogitPerWeight:
    """One logit for each entry of each masked parameter."""

    shapes: Mapping[str, torch.Size]

    def initial(self, logit: float, device: torch.device) -> list[Tensor]:
        """New logits, one tensor per parameter."""
        return [torch.full(shape, logit, device=device) for shape in self.shapes.values()]

    def masked(
        self,
        logits: list[Tensor],
        weights: Mapping[str, Tensor],
        estimator: Estimator,
        n_copies: int,
        generator: torch.Generator,
        progress: float,
    ) -> list[dict[str, Tensor]]:
        """Masked copies of the weights that `weights` holds; the others are left to the caller."""
        copies: list[dict[str, Tensor]] = [{} for _ in range(n_copies)]
        for name, tensor in zip(self.shapes, logits, strict=True):
            if name not in weights:
                continue
            # in the order in which the weight lies in memory, so that each copy lies like it
            axes = _axes_in_memory(weights[name])
            back = [axes.index(axis) for axis in range(len(axes))]
            ordered, weight = tensor.permute(axes), weights[name].permute(axes)
            for copy, masked in zip(copies, estimator(ordered, weight, n_copies, generator, progress), strict=True):
                copy[name] = masked.permute(back)
        return copies

    def spread(self, logits: list[Tensor]) -> dict[str, Tensor]:
        """The logits themselves, by parameter name."""
        return dict(zip(self.shapes, logits, strict=True))


@dataclass(frozen=True, eq=False)
class LogitPerGroup:
    """One logit for each group of weights; a weight is kept if every group that it is in is kept.

    Args:
        n_groups: Number of logits.
        factors: By parameter name, one or more arrays of group numbers, broadcastable to it; -1 = in no group.
        learning: The factors that are sampled while learning. A removed unit is silenced where it is read: if its
            incoming weights were 0 as well, neither side could feel what it would do, and it would never come back.
        shapes: By parameter name, the stored shape.
    """

    n_groups: int
    factors: Mapping[str, tuple[Tensor, ...]]
    learning: Mapping[str, tuple[Tensor, ...]]
    shapes: Mapping[str, torch.Size]

    def initial(self, logit: float, device: torch.device) -> list[Tensor]:
        """New logits: one vector."""
        return [torch.full((self.n_groups,), logit, device=device)]

    def masked(
        self,
        logits: list[Tensor],
        weights: Mapping[str, Tensor],
        estimator: Estimator,
        n_copies: int,
        generator: torch.Generator,
        progress: float,
    ) -> list[dict[str, Tensor]]:
        """Masked copies of the weights, where a weight is read in a way that only a copy can mask."""
        groups = self.kept(logits, estimator, n_copies, generator, progress)
        return [{name: self.masked_weight(name, weight, kept) for name, weight in weights.items()} for kept in groups]

    def kept(
        self, logits: list[Tensor], estimator: Estimator, n_copies: int, generator: torch.Generator, progress: float
    ) -> tuple[Tensor, ...]:
        """By how much each group is kept, from 0 to 1, in each of several samples."""
        if estimator is rao_blackwell:  # its copies share their random numbers, to be more even
            return estimator(logits[0], torch.ones_like(logits[0]), n_copies, generator, progress)
        each = logits[0].expand(n_copies, -1)  # all samples at once: there are few groups, and many small steps
        return estimator(each, torch.ones_like(each), 1, generator, progress)[0].unbind(0)

    def masked_weight(self, name: str, weight: Tensor, kept: Tensor) -> Tensor:
        """One parameter times what is kept of the groups that each of its entries is in."""
        always = torch.cat([kept, kept.new_ones(1)]).to(weight.dtype)  # index -1 reads the last entry: always kept
        masked = weight
        for groups in self.learning[name]:
            masked = masked * always[groups.to(kept.device)]
        return masked

    def spread(self, logits: list[Tensor]) -> dict[str, Tensor]:
        """The smallest logit of the groups that each weight is in; infinite in no group."""
        always = torch.cat([logits[0], logits[0].new_full((1,), torch.inf)])
        spread = {}
        for name, shape in self.shapes.items():
            smallest = always.new_full((), torch.inf)
            for groups in self.factors[name]:
                smallest = torch.minimum(smallest, always[groups.to(always.device)])
            spread[name] = smallest.expand(shape).contiguous()
        return spread


def _axes_in_memory(tensor: Tensor) -> list[int]:
    """The axes of a tensor, those with the longest steps first."""
    return sorted(range(tensor.ndim), key=tensor.stride, reverse=True)


def layout_of(granularity: Granularity, parameters: Mapping[str, nn.Parameter], wiring: Wiring | None) -> Layout:
    """How the logits lie.

    Args:
        granularity: See `Granularity`.
        parameters: The masked parameters.
        wiring: The units; needed for every granularity but "weight" and groups given by hand.

    Raises:
        MaskError: If the granularity is unknown, or its groups do not fit the parameters.
    """
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    if isinstance(granularity, str) and granularity == "weight":
        return LogitPerWeight(shapes)
    needs_wiring(granularity)  # refuses unknown names
    if isinstance(granularity, Mapping):
        return _given_groups(granularity, shapes)
    if isinstance(granularity, Grouping) and not granularity.needs_wiring:
        return granularity.layout(parameters, wiring)
    if wiring is None:
        raise MaskError(f"granularity {granularity!r} needs the wiring; give wiring=read_wiring(model, inputs)")
    if isinstance(granularity, Grouping):
        return granularity.layout(parameters, wiring)
    return _wired_groups(granularity, shapes, wiring)


def needs_wiring(granularity: Granularity) -> bool:
    """Whether the groups are read from the wiring.

    Raises:
        MaskError: If the granularity is unknown.
    """
    if isinstance(granularity, Mapping | Partition):
        return isinstance(granularity, Partition)
    if isinstance(granularity, Grouping):
        return granularity.needs_wiring
    if granularity not in NAMED_GRANULARITIES:
        known = ", ".join(NAMED_GRANULARITIES)
        raise MaskError(f"granularity must be one of {known}, a Partition or a mapping, got {granularity!r}")
    return granularity != "weight"


def group_of_units(granularity: str | Partition, wiring: Wiring) -> np.ndarray:
    """The group of each unit, -1 = none."""
    if isinstance(granularity, Partition):
        if len(granularity.labels) != wiring.n_units:
            raise MaskError(
                f"the partition has labels for {len(granularity.labels)} units, the wiring has {wiring.n_units} units"
            )
        return granularity.labels
    if granularity in ("row", "column", "unit"):
        return np.arange(wiring.n_units)
    if granularity not in wiring.groupings:
        raise MaskError(
            f"the wiring has no grouping '{granularity}'; it has {', '.join(wiring.groupings) or 'none'} - "
            "take another granularity, or give the groups by hand"
        )
    return np.asarray(wiring.groupings[granularity])


def _wired_groups(granularity: str | Partition, shapes: Mapping[str, torch.Size], wiring: Wiring) -> LogitPerGroup:
    group_of = np.append(group_of_units(granularity, wiring), -1)  # unit -1 is in no group
    sides = _SIDES.get(granularity, _BOTH) if isinstance(granularity, str) else _BOTH
    connections = [each for each in wiring.connections if each.kind == "weight" and each.parameter in shapes]
    is_read = np.zeros(wiring.n_units + 1, dtype=bool)
    for connection in connections if "sources" in sides else ():
        is_read[np.asarray(connection.sources)] = True
    unread_group_of = np.where(is_read, -1, group_of)
    factors: dict[str, tuple[Tensor, ...]] = {}
    learning: dict[str, tuple[Tensor, ...]] = {}
    for connection in connections:
        name = connection.parameter
        for side in sides:
            units = np.asarray(getattr(connection, side))
            factors[name] = (*factors.get(name, ()), torch.from_numpy(np.ascontiguousarray(group_of[units])))
            learned = group_of[units] if side == "sources" else unread_group_of[units]
            learning[name] = (*learning.get(name, ()), torch.from_numpy(np.ascontiguousarray(learned)))
    return _checked(factors, learning, shapes, f"granularity {granularity!r}")


def _given_groups(groups: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> LogitPerGroup:
    unknown = sorted(set(groups) - set(shapes))
    if unknown:
        raise MaskError(f"groups are given for {', '.join(unknown)}, but the masked parameters are {', '.join(shapes)}")
    factors = {name: (torch.as_tensor(numbers).long(),) for name, numbers in groups.items()}
    return _checked(factors, factors, shapes, "the groups given")


def _checked(
    factors: Mapping[str, tuple[Tensor, ...]],
    learning: Mapping[str, tuple[Tensor, ...]],
    shapes: Mapping[str, torch.Size],
    what: str,
) -> LogitPerGroup:
    used = {name: found for name, found in factors.items() if any(bool((numbers >= 0).any()) for numbers in found)}
    if not used:
        raise MaskError(f"{what}: no masked parameter joins a group; masked are {', '.join(shapes)}")
    for name, found in used.items():
        for numbers in found:
            try:
                torch.broadcast_to(numbers, shapes[name])
            except RuntimeError:
                raise MaskError(
                    f"{what}: group numbers of '{name}' have shape {tuple(numbers.shape)}, which does not broadcast to "
                    f"the parameter's {tuple(shapes[name])}"
                ) from None
    present = torch.unique(torch.cat([numbers.reshape(-1) for found in used.values() for numbers in found]))
    present = present[present >= 0]
    renumbered = torch.full((int(present.max()) + 2,), -1, dtype=torch.long)
    renumbered[present] = torch.arange(len(present))  # the last entry stays -1, and index -1 reads it
    dense = {name: tuple(renumbered[numbers] for numbers in found) for name, found in used.items()}
    sampled = {
        name: tuple(renumbered[numbers] for numbers in learning[name] if bool((numbers >= 0).any())) for name in used
    }
    return LogitPerGroup(len(present), dense, sampled, {name: shapes[name] for name in dense})
