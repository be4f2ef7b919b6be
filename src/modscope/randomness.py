"""Where do random numbers come from? Always from the caller, and never from the order in which work is done."""

from __future__ import annotations

import hashlib
from numbers import Integral
from typing import TypeAlias

import numpy as np

from modscope.errors import StatisticsError

Rng: TypeAlias = int | np.random.Generator


def generator(rng: Rng) -> np.random.Generator:
    """A generator for `rng`: a new one for an int, the same one for a Generator.

    Raises:
        StatisticsError: If `rng` is neither a non-negative int nor a `numpy.random.Generator`.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    return np.random.default_rng(seed_of(rng))


def seed_of(rng: Rng) -> int:
    """The seed that numbered draws start from: the int itself, or one integer drawn from the Generator."""
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**63))
    if isinstance(rng, Integral) and not isinstance(rng, bool) and rng >= 0:
        return int(rng)
    raise StatisticsError(f"rng must be a non-negative int or a numpy.random.Generator, got {rng!r}")


def numbered(seed: int, name: str, index: int = 0) -> np.random.Generator:
    """The generator of draw `index` of the series `name`: the same whatever was drawn before, and by whom.

    Counter-based: the key is the name's SHA-256 and the index, so results do not depend on the number of workers,
    on the order in which jobs end, or on Python's `hash`.

    Raises:
        StatisticsError: If the seed is not a non-negative int.
    """
    seed = seed_of(seed)
    digest = hashlib.sha256(name.encode()).digest()
    key = tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(*key, index)))
