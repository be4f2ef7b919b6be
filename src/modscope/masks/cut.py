"""What remains of a network when a mask is carried out: fewer weights, or fewer units?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from modscope.calling import check_model
from modscope.errors import MaskError
from modscope.masks.applied import applied
from modscope.masks.mask import Mask
from modscope.wiring.wiring import Wiring


def masked_state_dict(model: nn.Module, mask: Mask) -> dict[str, Tensor]:
    """The model's state dict with every weight that the mask removes set to zero.

    Raises:
        MaskError: If the mask is of another model.
    """
    with applied(check_model(model), mask) as masked:
        return {name: tensor.detach().clone() for name, tensor in check_model(masked).state_dict().items()}


def weights_of_units(model: nn.Module, wiring: Wiring, kept: Bool[np.ndarray, " units"]) -> Mask:
    """The weight mask of a unit mask: a weight stays if the units on both of its sides do.

    Args:
        model: The network.
        wiring: Its units.
        kept: Which units stay.

    Raises:
        MaskError: If `kept` is not of the wiring's units.
    """
    _check_units(kept, wiring)
    stays = np.append(kept, True)  # unit -1: none, so nothing speaks against the weight
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    masks: dict[str, Tensor] = {}
    for connection in wiring.connections:
        if connection.kind != "weight" or connection.parameter not in shapes:
            continue
        both = np.broadcast_to(stays[connection.sources] & stays[connection.targets], shapes[connection.parameter])
        mask = torch.from_numpy(both.copy())
        masks[connection.parameter] = masks.get(connection.parameter, mask) & mask
    return Mask(masks)


def units_of_weights(mask: Mask, wiring: Wiring, *, share: float = 0.0) -> Bool[np.ndarray, " units"]:
    """The unit mask of a weight mask: a unit stays if more than `share` of its weights are kept on each of its sides.

    A side on which the unit has no masked weights (the incoming side of an input) does not count.

    Args:
        mask: Which weights are kept.
        wiring: The units.
        share: How much of a side may be missing before the unit counts as removed: 0 = all of it.
    """
    stays = np.ones(wiring.n_units, dtype=bool)
    for side in ("sources", "targets"):
        total, kept = np.zeros(wiring.n_units), np.zeros(wiring.n_units)
        for connection in wiring.connections:
            if connection.kind != "weight" or connection.parameter not in mask.names:
                continue
            chosen = mask[connection.parameter].cpu().numpy()
            units = np.broadcast_to(getattr(connection, side), chosen.shape)
            total += np.bincount(units[units >= 0], minlength=wiring.n_units)
            kept += np.bincount(units[(units >= 0) & chosen], minlength=wiring.n_units)
        stays &= (total == 0) | (kept > share * total)
    return stays


def smaller_state_dict(model: nn.Module, wiring: Wiring, kept: Bool[np.ndarray, " units"]) -> dict[str, Tensor]:
    """The state dict of a smaller network: removed units are gone, rows, columns, biases and statistics alike.

    Inputs and outputs stay. Load it into the same architecture with smaller layers.

    Args:
        model: The network.
        wiring: Its units.
        kept: Which units stay.

    Raises:
        MaskError: If `kept` is not of the wiring's units, removes inputs or outputs, or units lie in a parameter in a
            way that cannot be cut out (packed heads, grouped kernels).
    """
    _check_units(kept, wiring)
    for group in wiring.groups:
        if group.kind in ("input", "output") and not kept[group.unit_ids].all():
            raise MaskError(f"units of the {group.kind} group '{group.name}' cannot be cut out; keep them all")
    inner = check_model(model)
    state = {name: tensor.detach().clone() for name, tensor in inner.state_dict().items()}
    stays = np.append(kept, True)
    for name, arrays in _units_by_parameter(wiring).items():
        full = state[name].shape
        for units in arrays:
            axis = _axis_of(units, full, name)
            if axis is None:
                continue
            chosen = torch.from_numpy(np.flatnonzero(stays[units.reshape(-1)])).to(state[name].device)
            for each in _with_statistics(name, full, state):
                state[each] = state[each].index_select(axis, chosen)
    return state


def _units_by_parameter(wiring: Wiring) -> dict[str, list[Int[np.ndarray, "..."]]]:
    arrays: dict[str, list[np.ndarray]] = {}
    for connection in wiring.connections:
        if connection.kind == "weight":
            arrays.setdefault(connection.parameter, []).extend([connection.sources, connection.targets])
    for parameter in wiring.unit_parameters:
        arrays.setdefault(parameter.parameter, []).append(parameter.units)
    return arrays


def _axis_of(units: Int[np.ndarray, "..."], shape: torch.Size, name: str) -> int | None:
    """The one axis of the parameter along which the units differ; None if no unit lies there."""
    if (units < 0).all():
        return None
    padded = (1,) * (len(shape) - units.ndim) + units.shape
    axes = [axis for axis, size in enumerate(padded) if size > 1]
    if len(axes) > 1:
        raise MaskError(
            f"units lie across {len(axes)} axes of '{name}', so none can be cut out of it; use masked_state_dict"
        )
    return axes[0] if axes else None


def _with_statistics(name: str, shape: torch.Size, state: Mapping[str, Tensor]) -> list[str]:
    """The parameter, and the running statistics of the same norm (once: with its gain)."""
    layer, _, kind = name.rpartition(".")
    if kind != "weight" or len(shape) != 1:
        return [name]
    statistics = [f"{layer}.{each}" for each in ("running_mean", "running_var")]
    return [name, *(each for each in statistics if each in state)]


def _check_units(kept: Bool[np.ndarray, " units"], wiring: Wiring) -> None:
    if kept.shape != (wiring.n_units,):
        raise MaskError(f"kept must hold one bool for each of the {wiring.n_units} units, got shape {kept.shape}")
