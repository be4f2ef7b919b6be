"""What would the network be if its weights stood elsewhere?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from modscope.errors import StatisticsError
from modscope.nulls.kernels import stored_kernels
from modscope.nulls.layers import Layer, Redrawn
from modscope.nulls.order import random_order
from modscope.nulls.redrawing import redraw_layers, replace_weights
from modscope.nulls.registry import null_model
from modscope.nulls.rewiring import rewired_positions
from modscope.nulls.unit_scale import scaled_anew, scaled_anew_by_size
from modscope.wiring.wiring import Connection, Wiring

BANDWIDTH = 0.01  # of the papers' kernel density estimates


@null_model("weights")
def shuffle_weights(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps the weights of each layer; destroys which units they join, zeros and the scale of units too.

    The papers' null ("layer"). A network whose units differ in scale looks *less* clusterable than its shuffles, and
    one whose large weights meet looks more: see docs/null-models.md.

    Source: Filan et al. 2021.
    """
    return redraw_layers(subject, _everywhere, rng)


@null_model("weights")
def shuffle_nonzero_weights(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps the weights of each layer and which units are joined at all; destroys which connection has which weight.

    Source: Filan et al. 2021 ("layer_nonzero").
    """
    return redraw_layers(subject, _in_place, rng)


@null_model("weights")
def redraw_nonzero_weights(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps which units are joined and roughly each layer's distribution of weights; destroys the weights themselves.

    Non-zero weights are drawn from a Gaussian kernel density estimate (bandwidth .01) of the layer's non-zero weights.

    Source: Filan et al. 2021 ("layer_nonzero_distribution").
    """
    return redraw_layers(subject, _from_density, rng)


@null_model("weights")
def shuffle_and_redraw_weights(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps the number of weights and roughly their distribution in each layer; destroys all else.

    `shuffle_weights`, then `redraw_nonzero_weights`.

    Source: Filan et al. 2021 ("layer_all_distribution").
    """
    return redraw_layers(subject, _from_density_everywhere, rng)


@null_model("weights")
def keep_unit_scale(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps the scale of each unit's incoming and outgoing weights and which units are joined; destroys the rest.

    Sizes are a product of a unit scale on each side and a residual (`scale_fit`). The residuals change places, with
    their signs, and the scales are drawn from what the data leave open about the true ones.
    """
    return redraw_layers(subject, _scaled_in_place, rng)


@null_model("weights")
def keep_unit_scale_rewired(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps the scale of each unit's weights and its number of connections on each side; destroys the rest.

    Like `keep_unit_scale`, after every layer's connections have been rewired by curveball trades. It asks a wider
    question in a pruned network, where the choice of connections may itself be the structure.
    """
    return redraw_layers(subject, _scaled_and_rewired, rng)


@null_model("weights")
def keep_unit_scale_by_size(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps what `keep_unit_scale` does, and how residuals differ between small and large weights; destroys the rest.

    A residual changes places only with those of positions where about as large a weight is expected. For networks
    with dead units, whose weights are no product of scales: see docs/null-models.md.
    """
    return redraw_layers(subject, _scaled_by_size, rng)


@null_model("weights")
def permute_within_rows(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps the set of incoming weights of each unit; destroys which unit each of them comes from.

    Zeros move too. The scale of a unit's outgoing weights is lost.
    """
    return redraw_layers(subject, _within_rows, rng)


@null_model("weights")
def permute_within_columns(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps the set of outgoing weights of each unit; destroys which unit each of them goes to.

    Zeros move too. The scale of a unit's incoming weights is lost.
    """
    return redraw_layers(subject, _within_columns, rng)


@null_model("weights", takes=(Wiring,))
def shuffle_within_signs(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps the sign of each connection, zero among them, and the sizes of each sign; destroys which size is where.

    A convolution's kernel counts by the sign of its sum. A graph has no signs: this takes a Wiring.
    """
    return redraw_layers(subject, _within_signs, rng)


@null_model("weights", takes=(Wiring,))
def random_initialisation(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps the architecture alone; destroys all that was learned, pruning too.

    Every weight that joins two units is uniform within +-1 / sqrt(weights into its unit), which is torch's rule for
    linear layers and convolutions. Biases and norms stay.
    """
    return replace_weights(subject, lambda connection: _initial_weight(connection, rng))


def _everywhere(layer: Layer, rng: np.random.Generator) -> Redrawn:
    origins = random_order(layer.n_entries, rng)
    return Redrawn(origins, layer.sizes[origins], _any_positions(layer, rng))


def _in_place(layer: Layer, rng: np.random.Generator) -> Redrawn:
    origins = random_order(layer.n_entries, rng)
    return Redrawn(origins, layer.sizes[origins], None)


def _from_density(layer: Layer, rng: np.random.Generator) -> Redrawn:
    origins = rng.integers(layer.n_entries, size=layer.n_entries)
    # The kernel is symmetric, so that the size of (weight + noise) is the size of (|weight| + noise).
    noise = BANDWIDTH * rng.standard_normal(layer.n_entries, dtype=np.float32)
    return Redrawn(origins, np.abs(layer.sizes[origins] + noise), None)


def _from_density_everywhere(layer: Layer, rng: np.random.Generator) -> Redrawn:
    drawn = _from_density(layer, rng)
    return Redrawn(drawn.origins, drawn.sizes, _any_positions(layer, rng))


def _scaled_in_place(layer: Layer, rng: np.random.Generator) -> Redrawn:
    return Redrawn(*scaled_anew(layer, layer, rng), None)


def _scaled_by_size(layer: Layer, rng: np.random.Generator) -> Redrawn:
    return Redrawn(*scaled_anew_by_size(layer, rng), None)


def _scaled_and_rewired(layer: Layer, rng: np.random.Generator) -> Redrawn:
    positions = rewired_positions(layer, rng)
    positioned = layer if positions is None else replace(layer, positions=positions)
    return Redrawn(*scaled_anew(layer, positioned, rng), positions)


def _any_positions(layer: Layer, rng: np.random.Generator) -> Int[np.ndarray, " entries"] | None:
    if layer.n_entries == layer.n_positions:
        return None
    return rng.choice(layer.n_positions, layer.n_entries, replace=False, shuffle=False)


def _within_rows(layer: Layer, rng: np.random.Generator) -> Redrawn:
    return _moved_within(layer, layer.all_rows, rng)


def _within_columns(layer: Layer, rng: np.random.Generator) -> Redrawn:
    return _moved_within(layer, layer.all_columns, rng)


def _moved_within(layer: Layer, strata: Int[np.ndarray, " positions"], rng: np.random.Generator) -> Redrawn:
    """Every entry at a random position of its own stratum."""
    by_stratum = np.argsort(strata, kind="stable")
    moved_to = np.empty(layer.n_positions, dtype=np.int64)
    moved_to[by_stratum] = np.lexsort((rng.random(layer.n_positions), strata))
    positions = moved_to if layer.positions is None else moved_to[layer.positions]
    order = np.argsort(positions)
    return Redrawn(order, layer.sizes[order], positions[order])


def _within_signs(layer: Layer, rng: np.random.Generator) -> Redrawn:
    if layer.signs is None:
        raise StatisticsError(f"the weights of '{layer.name}' have no signs here; give the Wiring, not its graph")
    origins = np.empty(layer.n_entries, dtype=np.int64)
    for sign in (-1, 0, 1):
        places = np.flatnonzero(layer.signs == sign)
        origins[places] = rng.permutation(places)
    return Redrawn(origins, layer.sizes[origins], None)


def _initial_weight(connection: Connection, rng: np.random.Generator) -> Tensor:
    stored = stored_kernels(connection)
    rows = stored.layer.all_rows
    n_inputs = np.bincount(rows, minlength=1)[rows] * stored.layer.kernel_size
    kernels = stored.kernels.copy()
    drawn = rng.uniform(-1, 1, size=(len(rows), kernels.shape[1]))
    kernels[stored.places] = drawn / np.sqrt(n_inputs)[:, None]
    return stored.as_weight(kernels, connection.weight)
