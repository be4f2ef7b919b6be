"""Which value does each unit take on each example?

A unit's value is taken where a layer reads it: at the input of the first layer that does, so after the nonlinearity
and the norms on the way. That is one place for a unit that many layers write, as in a residual stream. Before the
nonlinearity, it is taken at the output of the layer that writes it, where exactly one does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from modscope.calling import call, check_model, evaluation_mode, explained, split_batch
from modscope.errors import GraphError, ModscopeError
from modscope.progress import track
from modscope.wiring.wiring import Connection, Wiring

Reduction: TypeAlias = Literal["mean", "spectral", "max_column"]
Moment: TypeAlias = Literal["before", "after"]


@dataclass(frozen=True, eq=False)
class Place:
    """An input or the output of a layer, and the unit of each of its channels."""

    layer: str
    side: Literal["input", "output"]
    ids: Int[np.ndarray, " channels"]
    wanted: Int[np.ndarray, " units"]  # the units whose values are taken here, ascending

    def values(self, operand: Tensor, axis: int, reduction: Reduction) -> Float[Tensor, "examples positions units"]:
        """One value per example, position (token) and wanted unit."""
        if axis == 1:  # a map per channel
            maps = operand.flatten(2) if operand.ndim < 4 else operand
            per_channel = _reduced(maps, reduction)[:, None]  # (examples, 1, channels)
        else:
            per_channel = operand.reshape(len(operand), -1, operand.shape[-1])
        position = np.searchsorted(self.wanted, self.ids)
        is_wanted = np.isin(self.ids, self.wanted)
        if np.array_equal(self.ids[is_wanted], self.wanted):
            chosen: Tensor = per_channel[..., torch.from_numpy(np.flatnonzero(is_wanted)).to(operand.device)]
            return chosen
        order = np.flatnonzero(is_wanted)[np.argsort(position[is_wanted], kind="stable")]
        channels = per_channel[..., torch.from_numpy(order).to(operand.device)]
        n_each = len(order) // len(self.wanted)  # a flattened map has one channel per point of it
        flat = channels.unflatten(-1, (len(self.wanted), n_each))
        side = round(n_each**0.5)
        maps = flat.flatten(0, 1).unflatten(-1, (side, -1) if side**2 == n_each else (n_each, 1))
        values: Tensor = _reduced(maps, reduction).unflatten(0, flat.shape[:2])
        return values


def unit_values(
    model: nn.Module,
    wiring: Wiring,
    batches: Iterable[Any],
    *,
    wanted: Bool[np.ndarray, " units"],
    moment: Moment,
    reduction: Reduction,
    max_examples: int,
) -> tuple[Int[np.ndarray, " read"], Float[np.ndarray, "read examples"]]:
    """The units that could be read, and their values (float32) on the first `max_examples` examples.

    Where every layer sees the same positions (tokens) each position is an example of its own; otherwise a unit's
    mean over its positions is taken.

    Raises:
        GraphError: If there is no batch, the model fails on one, no wanted unit can be read, or a value is NaN.
    """
    model = check_model(model)
    places = _places(model, wiring, wanted, moment)
    units = np.concatenate([place.wanted for place in places]) if places else np.empty(0, np.int64)
    if not len(units):
        raise GraphError("no activation can be read: no layer that is a module of the model reads a wanted unit")
    parts: list[np.ndarray] = []
    n_left = max_examples
    with evaluation_mode(model), torch.no_grad(), _recording(model, places, reduction) as seen:
        for batch in track(batches, "reading activations"):
            parts.append(_run(model, batch, places, seen)[:, :n_left])
            n_left -= parts[-1].shape[1]
            if n_left <= 0:
                break
    if not parts:
        raise GraphError("there are no batches to read activations from; give at least one")
    values = np.concatenate(parts, axis=1)
    order = np.argsort(units)
    _check_finite(values, units, wiring)
    return units[order], values[order]


def _run(model: nn.Module, batch: Any, places: list[Place], seen: dict[int, Tensor]) -> Float[np.ndarray, "read ex"]:
    inputs = batch if isinstance(batch, Tensor) else split_batch(model, batch)[0]
    seen.clear()
    try:
        call(model, inputs)
    except ModscopeError:
        raise
    except Exception as error:
        raise explained(error, "reading activations", inputs, GraphError) from error
    if missing := [place.layer for index, place in enumerate(places) if index not in seen]:
        raise GraphError(
            f"layer '{missing[0]}' was not called on {type(inputs).__name__} inputs; its units have no values"
        )
    values = [seen[index] for index in range(len(places))]
    if len({value.shape[1] for value in values}) > 1:
        values = [value.mean(dim=1, keepdim=True) for value in values]
    rows = torch.cat([value.flatten(0, 1).float().cpu() for value in values], dim=1)  # (examples, units)
    return np.ascontiguousarray(rows.numpy().T)


@contextmanager
def _recording(model: nn.Module, places: list[Place], reduction: Reduction) -> Iterator[dict[int, Tensor]]:
    """Values of each place, by its index, as the model runs; the first call of a layer counts."""
    seen: dict[int, Tensor] = {}

    def keep(index: int, module: nn.Module, arguments: Any, output: Any = None) -> None:
        place = places[index]
        operand = arguments[0] if place.side == "input" else output
        if index not in seen and isinstance(operand, Tensor):
            seen[index] = place.values(operand, _channel_axis(module), reduction)

    handles = []
    for index, place in enumerate(places):
        module = model.get_submodule(place.layer)
        register = module.register_forward_pre_hook if place.side == "input" else module.register_forward_hook
        handles.append(register(partial(keep, index)))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _places(model: nn.Module, wiring: Wiring, wanted: Bool[np.ndarray, " units"], moment: Moment) -> list[Place]:
    """Where each wanted unit is read: one place per unit, the first that serves."""
    connections = [connection for connection in wiring.connections if connection.kind == "weight"]
    is_hidden = np.array([group.kind == "hidden" for group in wiring.groups], dtype=bool)[wiring.group_of]
    inputs = [(connection, "input") for connection in connections]
    outputs = [(connection, "output") for connection in connections]
    open_units, places = wanted.copy(), []
    for connection, side in [*outputs, *inputs] if moment == "before" else [*inputs, *outputs]:
        ids = _channel_ids(model, connection, side)
        if ids is None:
            continue
        units, counts = np.unique(ids[ids >= 0], return_counts=True)
        units = units[open_units[units]]
        if side == "output" and moment == "before":
            units = units[is_hidden[units]]  # what is added to a stream is not the stream's value
        if not len(units) or (side == "output" and counts.max() > 1):
            continue
        open_units[units] = False
        places.append(Place(connection.layer, side, ids, units))  # type: ignore[arg-type]
    return places


def _channel_ids(model: nn.Module, connection: Connection, side: str) -> Int[np.ndarray, " channels"] | None:
    """Unit of each channel that the layer reads or writes; None where the layer is no module with such channels."""
    try:
        module = model.get_submodule(connection.layer)
    except AttributeError:
        return None
    ids = connection.sources if side == "input" else connection.targets
    if isinstance(module, nn.modules.conv._ConvNd):
        n_channels = module.in_channels if side == "input" else module.out_channels
        if side == "input" and module.groups > 1 and ids.shape[0] > 1:
            ids = ids[:: len(ids) // module.groups]  # each group of output channels reads channels of its own
    elif isinstance(module, nn.Linear):
        n_channels = module.in_features if side == "input" else module.out_features
    elif type(module).__name__ == "Conv1D" and connection.weight.ndim == 2:  # Hugging Face's transposed linear layer
        n_channels = connection.weight.shape[0 if side == "input" else 1]
    else:
        return None
    return ids.ravel() if ids.size == n_channels else None


def _channel_axis(module: nn.Module) -> int:
    return 1 if isinstance(module, nn.modules.conv._ConvNd) else -1


def _reduced(maps: Float[Tensor, "examples channels *map"], reduction: Reduction) -> Float[Tensor, "examples channels"]:
    """One number per map: its mean, its largest singular value, or the largest column sum of absolute values."""
    if reduction == "mean":
        return maps.flatten(2).mean(dim=2)
    matrices = maps.flatten(3) if maps.ndim > 4 else maps.reshape(*maps.shape[:3], -1)
    norms: Tensor = torch.linalg.matrix_norm(matrices.float(), ord=2 if reduction == "spectral" else 1)
    return norms


def _check_finite(values: Float[np.ndarray, "read examples"], units: np.ndarray, wiring: Wiring) -> None:
    is_bad = ~np.isfinite(values).all(axis=1)
    if is_bad.any():
        name = wiring.groups[wiring.group_of[units[is_bad][0]]].name
        raise GraphError(f"{int(is_bad.sum())} units (first in group '{name}') take NaN or infinite values on the data")
