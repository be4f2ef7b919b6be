"""Which parameters of a model are masked?"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from modscope.errors import MaskError


def chosen_parameters(model: nn.Module, choice: str | Sequence[str]) -> dict[str, nn.Parameter]:
    """Parameters by name, in the model's order; a tied parameter once, under its first name.

    Args:
        model: Any module.
        choice: "weights" (matrices, kernels and embeddings), "weights+biases", "all" (every floating-point parameter),
            "csordas2021" (all but embeddings and biases), or patterns of names such as ["encoder.*.weight"].

    Raises:
        MaskError: If nothing is chosen, a pattern fits no parameter, or it names an integer parameter.
    """
    parameters = dict(model.named_parameters())
    if isinstance(choice, str) and choice in _PRESETS:
        keep = _PRESETS[choice]
        chosen = {
            name: tensor for name, tensor in parameters.items() if tensor.is_floating_point() and keep(name, tensor)
        }
        if not chosen:
            raise MaskError(f"parameters={choice!r} chooses nothing in {type(model).__name__}: {_listed(parameters)}")
        return chosen
    patterns = [choice] if isinstance(choice, str) else list(choice)
    if not patterns:
        raise MaskError(f"parameters is empty; take one of {', '.join(_PRESETS)}, or patterns of names")
    aliases = _names_of(model)
    chosen_names: set[str] = set()
    for pattern in patterns:
        found = {first for first, names in aliases.items() if any(fnmatch.fnmatchcase(name, pattern) for name in names)}
        if not found:
            raise MaskError(f"parameters pattern '{pattern}' fits no parameter: {_listed(parameters)}")
        chosen_names |= found
    return {name: _floating(name, tensor) for name, tensor in parameters.items() if name in chosen_names}


def _is_weight(name: str, tensor: nn.Parameter) -> bool:
    del name
    return tensor.ndim >= 2


def _is_weight_or_bias(name: str, tensor: nn.Parameter) -> bool:
    return tensor.ndim >= 2 or "bias" in name.rpartition(".")[2]


def _is_anything(name: str, tensor: nn.Parameter) -> bool:
    del name, tensor
    return True


def _is_masked_by_csordas(name: str, tensor: nn.Parameter) -> bool:
    del tensor
    return "embedding" not in name and "bias" not in name and not name.endswith("rezero_alpha")


_PRESETS: Mapping[str, Callable[[str, nn.Parameter], bool]] = {
    "weights": _is_weight,
    "weights+biases": _is_weight_or_bias,
    "all": _is_anything,
    "csordas2021": _is_masked_by_csordas,
}


def _names_of(model: nn.Module) -> dict[str, list[str]]:
    """All names of each parameter, by its first."""
    first_name: dict[int, str] = {}
    names: dict[str, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = first_name.setdefault(id(parameter), name)
        names.setdefault(first, []).append(name)
    return names


def _floating(name: str, tensor: nn.Parameter) -> nn.Parameter:
    if not tensor.is_floating_point():
        raise MaskError(f"parameter '{name}' holds {tensor.dtype} numbers; only floating-point ones can be masked")
    return tensor


def _listed(parameters: Mapping[str, nn.Parameter]) -> str:
    shown = [f"{name} {tuple(tensor.shape)}" for name, tensor in list(parameters.items())[:8]]
    return f"the model has {', '.join(shown) or 'no parameters'}{' ...' if len(parameters) > 8 else ''}"
