"""The exchanges of `random_order`, compiled. Importing this file needs numba (the extra `fast`)."""

from __future__ import annotations

from functools import partial

import numpy as np

from modscope import compiling

compiled = partial(compiling.compiled, nogil=True)


@compiled
def exchanged(partners: np.ndarray) -> np.ndarray:
    """0 .. n - 1 after items i = n - 1 .. 0 have changed places with items partners[i].

    Every order comes up equally often if partners[i] is uniform in 0 .. i. Without numba `order` does the same steps.

    Args:
        partners: 32-bit integers, partners[i] in 0 .. i.

    Source: Durstenfeld 1964, algorithm 235.
    """
    order = np.empty(len(partners), dtype=np.int32)
    for i in range(len(partners)):
        order[i] = i
    for i in range(len(partners) - 1, 0, -1):
        partner = partners[i]
        order[i], order[partner] = order[partner], order[i]
    return order
