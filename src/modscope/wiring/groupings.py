"""Which head, layer and block does a unit belong to?"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from modscope.wiring.carry import Writer
from modscope.wiring.wiring import UnitGroup


def head_labels(
    heads: Sequence[tuple[int, Int[np.ndarray, "..."]]], unit_of: Int[np.ndarray, " ids"]
) -> Int[np.ndarray, " units"]:
    """The attention head of each unit's query, key and value dimensions; -1 for units of no head.

    Units that several heads read (the keys and values of grouped-query attention) have a label of their own for
    each set of heads that shares them.
    """
    labels = np.full(int(unit_of.max(initial=-1)) + 1, -1, dtype=np.int64)
    pairs = [(head, unit) for head, ids in heads for unit in np.unique(unit_of[np.maximum(ids, -1)]) if unit >= 0]
    if not pairs:
        return labels
    heads_of: dict[int, set[int]] = {}
    for head, unit in pairs:
        heads_of.setdefault(int(unit), set()).add(head)
    sets = sorted({tuple(sorted(several)) for several in heads_of.values()})
    number = {several: i for i, several in enumerate(sets)}
    for unit, several in heads_of.items():
        labels[unit] = number[tuple(sorted(several))]
    return labels


def layer_labels(groups: Sequence[UnitGroup], writers: Sequence[Sequence[Writer]]) -> Int[np.ndarray, " units"]:
    """The layer that writes each unit, numbered in order of depth; -1 for inputs and streams."""
    return _labelled(
        groups,
        [
            None if group.kind in ("input", "stream") else own[0].layer
            for group, own in zip(groups, writers, strict=True)
        ],
    )


def block_labels(groups: Sequence[UnitGroup], writers: Sequence[Sequence[Writer]]) -> Int[np.ndarray, " units"]:
    """The block (transformer.h.3, layer2.0) that writes each unit; -1 for inputs, streams, and outside blocks."""
    return _labelled(
        groups,
        [
            None if group.kind in ("input", "stream") else block_of(own[0].layer)
            for group, own in zip(groups, writers, strict=True)
        ],
    )


def block_of(layer: str) -> str | None:
    """The outermost numbered part of a model that a layer lies in; None if there is none."""
    *outer, _leaf = layer.split(".")
    for match in (r"\d+", r".*\d"):
        for i, part in enumerate(outer):
            if re.fullmatch(match, part):
                return ".".join(outer[: i + 1])
    return None


def _labelled(groups: Sequence[UnitGroup], names: Sequence[str | None]) -> Int[np.ndarray, " units"]:
    number = {name: i for i, name in enumerate(dict.fromkeys(name for name in names if name is not None))}
    labels = [
        np.full(group.size, -1 if name is None else number[name]) for group, name in zip(groups, names, strict=True)
    ]
    return np.concatenate(labels).astype(np.int64) if labels else np.zeros(0, dtype=np.int64)
