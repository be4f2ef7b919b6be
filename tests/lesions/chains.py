"""Wirings written by hand, for chains of linear layers and convolutions."""

import numpy as np
from torch import nn

from modscope.wiring.wiring import Connection, UnitGroup, UnitParameter, Wiring


def chain_wiring(model: nn.Module) -> Wiring:
    """The wiring of a chain: a weight reads the units that the one before it writes; flattened maps keep channels."""
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    first = layers[0][1]
    groups = [_group("input", "input", 0, first.weight.shape[1] * getattr(first, "groups", 1), 0)]
    connections, parameters = [], []
    for depth, (name, layer) in enumerate(layers, start=1):
        before = groups[-1].unit_ids
        kind = "output" if depth == len(layers) else "hidden"
        groups.append(_group(name, kind, before[-1] + 1, layer.weight.shape[0], depth))
        connections.append(
            Connection(f"{name}.weight", layer.weight, _sources(layer, before), _targets(layer, groups[-1]), name)
        )
        if layer.bias is not None:
            parameters.append(UnitParameter(f"{name}.bias", "bias", groups[-1].unit_ids, name))
    return Wiring(tuple(groups), tuple(connections), tuple(parameters))


def _group(name: str, kind: str, start: int, size: int, depth: int) -> UnitGroup:
    return UnitGroup(name, kind, np.arange(start, start + size, dtype=np.int64), depth)


def _sources(layer: nn.Linear | nn.Conv2d, before: np.ndarray) -> np.ndarray:
    if isinstance(layer, nn.Linear):
        return np.repeat(before, layer.in_features // len(before))[None]  # (1, in): a flattened channel is one unit
    rows = layer.out_channels // layer.groups
    return np.repeat(before.reshape(layer.groups, -1), rows, axis=0)[:, :, None, None]


def _targets(layer: nn.Linear | nn.Conv2d, group: UnitGroup) -> np.ndarray:
    shape = (-1, 1) if isinstance(layer, nn.Linear) else (-1, 1, 1, 1)
    return group.unit_ids.reshape(shape)
