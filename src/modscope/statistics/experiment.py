"""How is one more random subject drawn, the same on any worker?"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float

from modscope.errors import StatisticsError
from modscope.jobs.executors import map_in_order, one_thread
from modscope.progress import track
from modscope.randomness import numbered

Statistic: TypeAlias = Callable[[Any, np.random.Generator], float]
Null: TypeAlias = Callable[[Any, np.random.Generator], Any]

# Two numbers that differ by less than this share of their size are a tie: sums of float32 in another order.
TIE = 1e-7


@dataclass(frozen=True)
class Experiment:
    """What a comparison was made from, so that more of it can be drawn: `series(index)` is the same on any worker."""

    subject: Any
    statistic: Statistic
    null: Null
    seed: int

    def observed(self, index: int) -> float:
        """The statistic of the subject itself, draw `index`."""
        return _number(self.statistic(self.subject, numbered(self.seed, "observed", index)), "the subject itself")

    def sample(self, index: int) -> float:
        """The statistic of random subject `index`."""
        value = self.statistic(*random_subject(self.subject, self.null, self.seed, index))
        return _number(value, f"null sample {index} of {name_of(self.null)}")

    def samples(
        self, start: int, stop: int, executor: Executor | None, description: str = ""
    ) -> Float[np.ndarray, " samples"]:
        """Samples `start` to `stop - 1`.

        In this process a statistic that has a method `many` takes the random subjects in a stream, as many side by side
        as it likes: `many(pairs of subject and rng)` -> the numbers, in order.
        """
        description = description or f"null samples, {name_of(self.null)}"
        many = getattr(self.statistic, "many", None)
        if executor is not None or many is None:
            values = map_in_order(self.sample, range(start, stop), executor=executor, description=description)
            return np.array(values, dtype=np.float64)
        subjects = (random_subject(self.subject, self.null, self.seed, index) for index in range(start, stop))
        with one_thread():
            numbers = list(track(many(subjects), description, total=stop - start))
        where = f"of {name_of(self.null)}"
        values = [_number(value, f"null sample {index} {where}") for index, value in enumerate(numbers, start)]
        return np.array(values, dtype=np.float64)


def random_subject(subject: Any, null: Null, seed: int, index: int) -> tuple[Any, np.random.Generator]:
    """Random subject `index`, and the generator that its statistic goes on with."""
    rng = numbered(seed, f"null {name_of(null)}", index)
    return null(subject, rng), rng


def observed_draws(draw: Callable[[int], float], n_draws: int) -> list[float]:
    """Up to `n_draws` draws; two where the first two are equal, since such a statistic has no randomness."""
    draws = map_in_order(draw, range(min(2, n_draws)))
    if len(draws) == 2 and not math.isclose(*draws, rel_tol=TIE):
        draws += map_in_order(draw, range(2, n_draws))
    return draws


def name_of(function: Callable[..., Any]) -> str:
    """What a function, a strategy or a partial is called."""
    inner = getattr(function, "func", function)
    return str(getattr(inner, "__name__", type(inner).__name__))


def _number(value: Any, where: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise StatisticsError(f"the statistic of {where} is {number}; it must give a finite number for every subject")
    return number
