"""How does a model run under a mask, and come back unchanged?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from modscope.calling import check_model
from modscope.errors import MaskError
from modscope.masks.mask import Mask


@contextmanager
def applied(model: nn.Module, mask: Mask) -> Iterator[nn.Module]:
    """The model with every weight that the mask removes set to zero; afterwards it is itself again.

    Masked copies stand in for the parameters while inside; the parameters are set aside, never written, and put back
    whatever happens. So the model is bit-identical afterwards, a tied weight is masked wherever it is used, and
    `backward` through a masked run is right also after the end. Changes made to masked parameters inside are lost.

    Raises:
        MaskError: If the mask is of another model (names or shapes).
    """
    inner = check_model(model)
    parameters = masked_parameters(inner, mask)
    stand_ins = {id(parameter): _masked(parameter, mask.kept[name]) for name, parameter in parameters.items()}
    places = [
        (layer, name, parameter)
        for layer in inner.modules()
        for name, parameter in layer.named_parameters(recurse=False, remove_duplicate=False)
        if id(parameter) in stand_ins
    ]
    try:
        for layer, name, parameter in places:
            setattr(layer, name, stand_ins[id(parameter)])
        yield model
    finally:
        for layer, name, parameter in places:
            setattr(layer, name, parameter)  # not by the dict: recurrent layers keep a second list up to date


def _masked(parameter: nn.Parameter, kept: Tensor) -> nn.Parameter:
    zero = torch.zeros((), dtype=parameter.dtype, device=parameter.device)
    masked = torch.where(kept.to(parameter.device), parameter.detach(), zero)
    return nn.Parameter(masked, requires_grad=parameter.requires_grad)


def masked_parameters(model: nn.Module, mask: Mask) -> dict[str, nn.Parameter]:
    """The model's parameters that the mask names.

    Raises:
        MaskError: If names or shapes do not fit the model, or two names of one tied parameter are masked differently.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    unknown = [name for name in mask.names if name not in parameters]
    if unknown:
        raise MaskError(
            f"the mask is of another model: {type(model).__name__} has no parameter {', '.join(unknown)}; "
            f"it has {', '.join(list(parameters)[:8])}{' ...' if len(parameters) > 8 else ''}"
        )
    chosen: dict[str, nn.Parameter] = {}
    name_of: dict[int, str] = {}
    for name in mask.names:
        parameter = parameters[name]
        if parameter.shape != mask.kept[name].shape:
            raise MaskError(
                f"the mask is of another model: '{name}' has shape {tuple(parameter.shape)} in the model and "
                f"{tuple(mask.kept[name].shape)} in the mask"
            )
        if id(parameter) in name_of:
            first = name_of[id(parameter)]
            if not torch.equal(mask.kept[first], mask.kept[name]):
                raise MaskError(f"'{first}' and '{name}' are one tied parameter, but the mask treats them differently")
            continue
        name_of[id(parameter)] = name
        chosen[name] = parameter
    return chosen
