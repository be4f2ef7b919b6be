"""How does a null model that draws one layer at a time draw a whole network?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from torch import Tensor

from modscope.graph.unit_graph import Block, UnitGraph
from modscope.nulls.blocks import block_with, layer_of
from modscope.nulls.kernels import stored_kernels
from modscope.nulls.layers import LayerDraw
from modscope.wiring.wiring import Connection, Wiring


def redraw_layers(subject: Wiring | UnitGraph, draw: LayerDraw, rng: np.random.Generator) -> Wiring | UnitGraph:
    """The subject with every layer drawn anew. Shared parameters are drawn once; the subject stays as it is.

    Raises:
        StatisticsError: If a weight is not there (on the meta device) or not finite.
    """
    if isinstance(subject, UnitGraph):
        return replace(subject, blocks=tuple(_redrawn_block(block, draw, rng) for block in subject.blocks))
    return replace_weights(subject, lambda connection: _redrawn_weight(connection, draw, rng))


def replace_weights(wiring: Wiring, new_weight: Callable[[Connection], Tensor]) -> Wiring:
    """The wiring with other weights; a parameter that several connections share is made once."""
    weights: dict[str, Tensor] = {}
    connections = []
    for connection in wiring.connections:
        if connection.kind == "weight":
            if connection.parameter not in weights:
                weights[connection.parameter] = new_weight(connection)
            connections.append(replace(connection, weight=weights[connection.parameter]))
        else:
            connections.append(connection)
    return replace(wiring, connections=tuple(connections))


def _redrawn_block(block: Block, draw: LayerDraw, rng: np.random.Generator) -> Block:
    layer = layer_of(block)
    if layer.n_entries == 0:
        return block
    redrawn = draw(layer, rng)
    positions = layer.positions if redrawn.positions is None else redrawn.positions
    return block_with(block, layer, positions, redrawn.sizes)


def _redrawn_weight(connection: Connection, draw: LayerDraw, rng: np.random.Generator) -> Tensor:
    stored = stored_kernels(connection)
    layer = stored.layer
    if layer.n_entries == 0:
        return connection.weight
    redrawn = draw(layer, rng)
    old_places = stored.places_of(layer.positions)
    factors = (redrawn.sizes / layer.sizes[redrawn.origins]).astype(layer.precision)
    drawn = stored.kernels[old_places][redrawn.origins] * factors[:, None]
    kernels = stored.kernels.copy()
    kernels[old_places] = 0.0
    kernels[old_places if redrawn.positions is None else stored.places_of(redrawn.positions)] = drawn
    return stored.as_weight(kernels, connection.weight)
