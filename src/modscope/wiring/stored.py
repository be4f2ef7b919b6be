"""Where on a stored parameter does an id belong, when the model uses a part of it, transposed or reshaped?"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from modscope.wiring.values import NONE, Parameter, thinned


def stored(parameter: Parameter, entries: Tensor, *, covers: bool, missing: int = NONE) -> Int[np.ndarray, "..."]:
    """Entries of a parameter as it is used, on the parameter as it is stored; broadcasts to the stored shape.

    Args:
        parameter: The whole of a stored parameter, or a part of it that is sliced, transposed or reshaped.
        entries: Broadcasts to the part.
        covers: Write `missing` wherever the part does not reach.
        missing: What entries outside the part get.
    """
    if parameter.positions is None:
        return entries.numpy()
    if not parameter.stored_shape:
        return np.array(int(entries.reshape(-1)[0]))
    if 0 in parameter.stored_shape or 0 in entries.shape:
        return np.full([1] * len(parameter.stored_shape), missing, dtype=np.int64)
    support = [axis for axis in range(entries.ndim) if entries.shape[axis] > 1]
    positions, is_along = [], []
    for size, whole in zip(parameter.stored_shape, parameter.positions, strict=True):
        position = whole
        for axis in range(whole.ndim):
            if axis not in support:
                position = position.narrow(axis, 0, 1)
        reaches_all = len(torch.unique(thinned(whole)[0])) == size
        is_along.append(bool((position != position.reshape(-1)[0]).any()) or (covers and not reaches_all))
        positions.append(position.expand(entries.shape).numpy())
    shape = [size if along else 1 for size, along in zip(parameter.stored_shape, is_along, strict=True)]
    result = np.full(shape, missing, dtype=np.int64)
    index = (p if along else np.zeros_like(p) for p, along in zip(positions, is_along, strict=True))
    result[tuple(index)] = entries.numpy()
    return result
