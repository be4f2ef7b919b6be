"""How do the ids of a run become units, groups and connections with readable names?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.wiring.carry import Carry, RawConnection, Writer
from modscope.wiring.groupings import block_labels, head_labels, layer_labels
from modscope.wiring.unions import UNMERGED
from modscope.wiring.values import NONE, Value
from modscope.wiring.wiring import Connection, GroupKind, UnitGroup, UnitParameter, Wiring


def assembled(carry: Carry, outputs: Sequence[Value], parameters: Mapping[str, Tensor]) -> Wiring:
    """The wiring that a finished run has found."""
    for value in outputs:
        _mark_norms_before_output(carry, value)
    roots = carry.unions.roots
    drafts = _drafts(carry, roots, _output_roots(carry, outputs))
    groups, unit_of_root = _numbered(drafts, carry)
    unit_of = np.append(np.append(unit_of_root, NONE)[roots], NONE)  # the last entry serves id -1
    units = _Units(carry, unit_of)
    connections = _distinct(units.connection(raw, parameters) for raw in carry.connections)
    unit_parameters = {
        (raw.parameter, raw.kind, where.tobytes()): UnitParameter(raw.parameter, raw.kind, where, raw.layer)
        for raw in carry.unit_parameters
        if (where := units.of(raw.units)).size and (where >= 0).any()
    }
    writers = [[carry.writers[index] for index in draft.writers] for draft in drafts]
    return Wiring(
        groups=groups,
        connections=connections,
        unit_parameters=tuple(unit_parameters.values()),
        warnings=tuple(carry.warnings),
        groupings={
            "head": head_labels(carry.heads, unit_of),
            "layer": layer_labels(groups, writers),
            "block": block_labels(groups, writers),
        },
    )


@dataclass(frozen=True, eq=False)
class _Draft:
    """A group before it has its number: the units that the same layers write."""

    roots: Int[np.ndarray, " units"]
    writers: tuple[int, ...]
    kind: GroupKind
    depth: int


def _mark_norms_before_output(carry: Carry, value: Value) -> None:
    if value.ids is None or value.gains is None:
        return
    ids, gains = (tensor.expand(value.shape).reshape(-1).numpy() for tensor in (value.ids, value.gains))
    ids, first = np.unique(ids, return_index=True)
    is_id = ids >= 0
    carry.unions.mark_merged(ids[is_id], gains[first][is_id])


def _output_roots(carry: Carry, outputs: Sequence[Value]) -> Int[np.ndarray, " units"]:
    ids = [np.unique(value.ids.numpy()) for value in outputs if value.ids is not None]
    every = np.unique(np.concatenate(ids)) if ids else np.zeros(0, dtype=np.int64)
    return np.unique(carry.unions.find(every[every >= 0]))


def _drafts(carry: Carry, roots: Int[np.ndarray, " ids"], outputs: Int[np.ndarray, " units"]) -> list[_Draft]:
    """Groups of units with the same writers, in order of depth; inputs that nothing reads are left out."""
    writer, unions = carry.unions.writer, carry.unions
    written = writer >= 0
    pairs = np.unique(np.stack([roots[written], writer[written]]), axis=1)
    first_depth = np.full(unions.n_ids, np.iinfo(np.int64).max)
    np.minimum.at(first_depth, roots[written], unions.depths[written])
    is_stream = np.zeros(unions.n_ids, dtype=bool)
    np.logical_or.at(is_stream, roots, unions.is_stream)
    is_output = np.zeros(unions.n_ids, dtype=bool)
    is_output[outputs] = True
    is_used = _used(carry, roots) | is_output
    drafts = []
    for writers, members in _same_writers(pairs).items():
        is_input = any(carry.writers[index].kind == "input" for index in writers)
        members = members[is_used[members]] if all(carry.writers[i].kind == "input" for i in writers) else members
        if not len(members):
            continue
        kind: GroupKind = "input" if is_input else "output" if is_output[members].any() else "hidden"
        kind = "stream" if is_stream[members].any() else kind
        drafts.append(_Draft(members, writers, kind, int(first_depth[members].min())))
    return sorted(drafts, key=lambda draft: (draft.kind != "input", draft.depth, draft.writers))


def _used(carry: Carry, roots: Int[np.ndarray, " ids"]) -> np.ndarray:
    is_used = np.zeros(carry.unions.n_ids, dtype=bool)
    for connection in carry.connections:
        for side in (connection.sources, connection.targets):
            is_used[roots[np.unique(side[side >= 0])]] = True
    return is_used


def _same_writers(pairs: Int[np.ndarray, "2 pairs"]) -> dict[tuple[int, ...], Int[np.ndarray, " units"]]:
    """Units by the writers that they have; `pairs` holds units (sorted) and their writers."""
    units, start = np.unique(pairs[0], return_index=True)
    ends = np.append(start[1:], pairs.shape[1])
    by_writers: dict[tuple[int, ...], list[int]] = {}
    for unit, begin, end in zip(units.tolist(), start.tolist(), ends.tolist(), strict=True):
        by_writers.setdefault(tuple(pairs[1, begin:end].tolist()), []).append(unit)
    return {writers: np.array(members) for writers, members in by_writers.items()}


def _numbered(drafts: Sequence[_Draft], carry: Carry) -> tuple[tuple[UnitGroup, ...], Int[np.ndarray, " ids"]]:
    """Groups with units numbered one after the other, and the unit of each root (-1: none)."""
    unit_of_root = np.full(carry.unions.n_ids, NONE, dtype=np.int64)
    names = _unique(_names(drafts, carry.writers))
    groups, first = [], 0
    for draft, name in zip(drafts, names, strict=True):
        units = np.arange(first, first + len(draft.roots))
        first += len(units)
        unit_of_root[draft.roots] = units
        groups.append(UnitGroup(name, draft.kind, units, draft.depth))
    return tuple(groups), unit_of_root


# -- names ---------------------------------------------------------------------------------------------------------


def _names(drafts: Sequence[_Draft], writers: Sequence[Writer]) -> list[str]:
    n_streams = sum(draft.kind == "stream" for draft in drafts)
    names = []
    for draft in drafts:
        layers = [writers[index] for index in draft.writers if writers[index].kind != "input"]
        own = [_name_of(writer) for writer in layers or [writers[index] for index in draft.writers]]
        shared = _common_prefix(own)
        if draft.kind == "stream":
            shared = "stream" if n_streams == 1 or not shared else f"{shared}.stream"
        names.append(shared or " + ".join(own[:3]))
    return names


def _name_of(writer: Writer) -> str:
    """The layer's name; with its parameter's where one layer holds several weights."""
    if writer.kind == "input":
        return writer.parameter
    leaf = writer.parameter.rpartition(".")[2]
    if leaf in ("weight", "original", "original0", "original1"):
        return writer.layer.removesuffix(".parametrizations.weight") or leaf
    return f"{writer.layer}.{leaf.removesuffix('_weight').removeprefix('weight_ih_')}".lstrip(".")


def _common_prefix(names: Sequence[str]) -> str:
    parts = [name.split(".") for name in names]
    shared = []
    for column in zip(*parts, strict=False):
        if len(set(column)) > 1:
            break
        shared.append(column[0])
    return ".".join(shared)


def _unique(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that stand twice."""
    total, seen = Counter(names), Counter[str]()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if total[name] == 1 else f"{name}.{seen[name]}")
    return unique


# -- connections ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Units:
    """Ids as units, and gains as the scales that stand beside a weight."""

    carry: Carry
    unit_of: Int[np.ndarray, " ids"]

    def of(self, ids: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        """The unit of each id; -1 for none."""
        units: Int[np.ndarray, "*shape"] = np.asarray(self.unit_of[np.maximum(ids, NONE)])
        return units

    def connection(self, raw: RawConnection, parameters: Mapping[str, Tensor]) -> Connection | None:
        """The connection in units; None if it joins nothing."""
        sources, targets = self.of(raw.sources), self.of(raw.targets)
        if not (targets >= 0).any():
            return None
        if raw.kind == "query_key":
            return Connection("", torch.ones(len(sources)), sources, targets, raw.layer, "query_key")
        weight = parameters[raw.parameter]
        scales = self.source_scale(raw), self.target_scale(raw)
        return Connection(raw.parameter, weight, sources, targets, raw.layer, "weight", *scales)

    def source_scale(self, raw: RawConnection) -> Float[np.ndarray, "..."] | None:
        """What norms do to a unit before it is read here; nothing where its writer counts that norm already."""
        merged = np.append(self.carry.unions.merged_gain, UNMERGED)[np.maximum(raw.sources, NONE)]
        gains = np.where(raw.source_gains == merged, 0, raw.source_gains)
        return self.carry.gains[gains] if gains.any() else None

    def target_scale(self, raw: RawConnection) -> Float[np.ndarray, "..."] | None:
        """What a norm does to what is written here, before it is added to something else or put out."""
        gains = np.append(self.carry.unions.merged_gain, 0)[np.maximum(raw.targets, NONE)]
        gains = np.maximum(gains, 0)
        return self.carry.gains[gains] if gains.any() else None


def _distinct(connections: Iterable[Connection | None]) -> tuple[Connection, ...]:
    """Connections, once each: a layer that is used twice on the same units is one connection."""
    seen: dict[tuple[object, ...], Connection] = {}
    for connection in connections:
        if connection is not None:
            key = (connection.parameter, connection.kind, connection.sources.tobytes(), connection.targets.tobytes())
            seen.setdefault((*key, connection.layer if connection.kind == "query_key" else ""), connection)
    return tuple(seen.values())
