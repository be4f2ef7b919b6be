"""The exchanges of `random_order`, compiled. Importing this file needs numba (the extra `fast`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """The function as machine code, kept on disk between runs."""
    # numba can compile the function itself only, not a wrapper that checks its arguments
    return cast("Function", njit(cache=True, nogil=True)(inspect.unwrap(function)))


@compiled
def exchanged(partners: np.ndarray) -> np.ndarray:
    """0 .. n - 1 after items i = n - 1 .. 0 have changed places with items partners[i]."""
    order = np.empty(len(partners), dtype=np.int32)
    for i in range(len(partners)):
        order[i] = i
    for i in range(len(partners) - 1, 0, -1):
        partner = partners[i]
        order[i], order[partner] = order[partner], order[i]
    return order
