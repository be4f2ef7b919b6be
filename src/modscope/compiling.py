"""How does a loop become machine code? Importing this file needs numba (the extra `fast`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function, **options: Any) -> Function:
    """The function as machine code, kept on disk between runs.

    Args:
        function: Loops over numpy arrays.
        options: Of `numba.njit`.
    """
    # numba can compile the function itself only, not a wrapper that checks its arguments
    return cast("Function", njit(cache=True, **options)(inspect.unwrap(function)))
