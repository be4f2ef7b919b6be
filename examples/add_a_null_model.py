"""How do I add a null model? A function that draws a random version of a subject, and says what it keeps."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import modscope as ms
from modscope.nulls.layers import Layer, Redrawn
from modscope.nulls.redrawing import redraw_layers
from modscope.nulls.registry import null_model


@null_model("weights")  # what it randomises; from now on it is found in ms.NULL_MODELS by its name
def shuffle_within_units(subject: ms.Wiring | ms.UnitGraph, rng: np.random.Generator) -> ms.Wiring | ms.UnitGraph:
    """Keeps the weights that each unit reads; destroys which of them comes from which unit."""
    return redraw_layers(subject, within_rows, rng)


def within_rows(layer: Layer, rng: np.random.Generator) -> Redrawn:
    """The entries of each row of one layer in random order."""
    origins = np.lexsort((rng.random(layer.n_entries), layer.rows))
    return Redrawn(origins, layer.sizes[origins], positions=None)


model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
wiring = ms.read_wiring(model, torch.zeros(1, 6))

# It does what its docstring says: every row keeps its sum, and the layers are not what they were.
drawn = ms.NULL_MODELS["shuffle_within_units"](ms.weight_graph(wiring), 0)
for before, after in zip(ms.weight_graph(wiring).blocks, drawn.blocks, strict=True):
    assert np.allclose(before.sizes.sum(axis=1), after.sizes.sum(axis=1))
    assert not np.array_equal(before.sizes, after.sizes)

result = ms.clusterability(wiring, ms.Spectral(n_clusters=2), nulls="shuffle_within_units", n_samples=19)
print(result["shuffle_within_units"])
