"""How many weights do random masks share?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

_REACH = 12  # standard deviations; what lies farther out has next to none of the probability
_LEAST_P = 1e-20  # no p below it is given: what is cut off farther out could be as much


@dataclass(frozen=True, eq=False)
class RandomIntersection:
    """How many entries two random sets share: `probabilities[i]` for `least + i` of them."""

    least: int
    probabilities: Float[np.ndarray, " outcomes"]

    def mean(self, of: Callable[[Float[np.ndarray, " outcomes"]], Float[np.ndarray, " outcomes"]]) -> float:
        """The mean of a function of the number of shared entries; NaN where it is undefined for a likely number."""
        return float(self.probabilities @ of(self._numbers()))

    def quantiles(self, *shares: float) -> tuple[int, ...]:
        """The smallest numbers that at least these shares of random sets do not exceed."""
        places = np.searchsorted(np.cumsum(self.probabilities), shares)
        return tuple(self.least + min(int(place), len(self.probabilities) - 1) for place in places)

    def at_least(self, number: int) -> float:
        """The probability that random sets share this many or more; what is below 1e-20 is given as that."""
        return self._p(self.probabilities[max(number - self.least, 0) :])

    def at_most(self, number: int) -> float:
        """The probability that random sets share this many or fewer; what is below 1e-20 is given as that."""
        return self._p(self.probabilities[: max(number - self.least + 1, 0)])

    @staticmethod
    def _p(tail: Float[np.ndarray, " _outcomes"]) -> float:
        return min(max(float(tail.sum()), _LEAST_P), 1.0)

    def _numbers(self) -> Float[np.ndarray, " outcomes"]:
        return self.least + np.arange(len(self.probabilities), dtype=np.float64)


def random_intersection(cells: Iterable[tuple[int, int, int]]) -> RandomIntersection:
    """The shared entries of two random sets, exactly: a sum of hypergeometric numbers.

    Args:
        cells: For each cell of entries that are drawn among themselves (a tensor, a decile of sizes): how many there
            are, and how many of them each set has.
    """
    least, mass = 0, np.ones(1)
    for size, n_first, n_second in cells:
        if not n_first or not n_second:
            continue
        low, probabilities = _hypergeometric(size, n_first, n_second)
        least, mass = least + low, np.convolve(mass, probabilities)
    return RandomIntersection(least, mass / mass.sum())


def _hypergeometric(size: int, n_first: int, n_second: int) -> tuple[int, Float[np.ndarray, " outcomes"]]:
    from scipy.stats import hypergeom

    mean = n_first * n_second / size
    deviation = np.sqrt(mean * (1 - n_first / size) * (size - n_second) / max(size - 1, 1))
    reach = _REACH * (deviation + 1)
    low = max(0, n_first + n_second - size, int(mean - reach))
    high = min(n_first, n_second, int(mean + reach) + 1)
    return low, np.asarray(hypergeom.pmf(np.arange(low, high + 1), size, n_first, n_second))
