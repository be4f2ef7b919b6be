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

    The original tensors are set aside and never written, so the model is bit-identical afterwards, whatever happens
    inside. A tied weight is masked wherever it is used. Changes made to masked parameters inside are lost. Run
    `backward` inside if you need it: outside, autograd reports that the weights were changed.

    Raises:
        MaskError: If the mask is of another model (names or shapes), or removes entries of an integer parameter.
    """
    inner = check_model(model)
    parameters = masked_parameters(inner, mask)
    originals = [(parameter, parameter.data) for parameter in parameters.values()]
    try:
        for name, parameter in parameters.items():
            kept = mask.kept[name].to(parameter.device)
            parameter.data = torch.where(kept, parameter.data, torch.zeros((), dtype=parameter.dtype))
        yield model
    finally:
        for parameter, original in originals:
            parameter.data = original
        _mark_as_changed([parameter for parameter, _ in originals])


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


def _mark_as_changed(parameters: list[nn.Parameter]) -> None:
    """Nothing; a graph that was recorded under the mask now refuses to run backward with the unmasked weights."""
    tensors: list[Tensor] = list(parameters)
    torch.autograd.graph.increment_version(tensors)
