"""Do the tensors of masks fit together, in names and shapes?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modscope.errors import MaskError


def check_kept(kept: Mapping[str, Tensor]) -> None:
    """Nothing, if these are boolean tensors by parameter name.

    Raises:
        MaskError: If they are not, or there are none.
    """
    if not isinstance(kept, Mapping) or not kept:
        raise MaskError("a mask needs a mapping with at least one parameter name -> boolean tensor")
    for name, tensor in kept.items():
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.bool:
            given = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise MaskError(f"mask of '{name}' must be a boolean tensor, got {given}")


def check_same_parameters(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    """Nothing, if both masks are of the same parameters.

    Args:
        first: What one mask keeps, by parameter name.
        second: What the other keeps.

    Raises:
        MaskError: If names or shapes differ.
    """
    different = sorted(set(first) ^ set(second))
    if different:
        raise MaskError(
            f"the masks are of different parameters: only one of them has {', '.join(different)}; "
            "take masks of one model, or restrict both to the same parameters"
        )
    for name, tensor in first.items():
        if tensor.shape != second[name].shape:
            raise MaskError(
                f"the masks differ in the shape of '{name}': {tuple(tensor.shape)} and "
                f"{tuple(second[name].shape)}; take masks of one model"
            )


def are_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether both hold the same values under the same names, on whatever device."""
    return set(first) == set(second) and all(
        tensor.shape == second[name].shape and torch.equal(tensor.cpu(), second[name].cpu())
        for name, tensor in first.items()
    )


def check_companions(kept: Mapping[str, Tensor], tensors: Mapping[str, Tensor] | None, what: str) -> None:
    """Nothing, if there are no such tensors, or one of the right shape beside each of a mask's.

    Args:
        kept: The mask's own tensors.
        tensors: Those beside them.
        what: What they are, for the message.

    Raises:
        MaskError: If names or shapes differ.
    """
    if tensors is None:
        return
    if set(tensors) != set(kept):
        raise MaskError(f"{what} are for {', '.join(tensors)}, the mask for {', '.join(kept)}")
    for name, tensor in tensors.items():
        if tensor.shape != kept[name].shape:
            raise MaskError(f"{what} of '{name}' have shape {tuple(tensor.shape)}, not {tuple(kept[name].shape)}")
