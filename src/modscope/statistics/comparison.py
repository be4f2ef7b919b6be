"""Is a number more extreme than chance allows?"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from modscope.errors import StatisticsError
from modscope.randomness import Rng, seed_of
from modscope.records import Record, record_of
from modscope.statistics.experiment import TIE, Experiment, Null, Statistic, name_of, observed_draws
from modscope.statistics.intervals import prediction_interval
from modscope.statistics.sequential import anytime_p_value

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

Alternative: TypeAlias = Literal["less", "greater", "two-sided"]
ALTERNATIVES = ("less", "greater", "two-sided")
FAR = 4.0  # standard deviations beyond which a value on the side that is not claimed speaks against the null model ...
ENOUGH = 19  # ... if there are so many samples


@dataclass(frozen=True, eq=False)
class Comparison:
    """A statistic against its null distribution.

    The p-value is (r + 1) / (n + 1), r = number of null samples at least as extreme as the observed value; a tie
    counts against the claim. It can never be below `floor`.
    """

    observed: float
    null_samples: Float[np.ndarray, " samples"]
    alternative: Alternative
    null_name: str
    observed_draws: tuple[float, ...] = ()  # more draws of a random statistic, `observed` first
    looks: tuple[int, ...] = ()  # number of samples at each look: one entry, and one more for every extension
    experiment: Experiment | None = field(default=None, repr=False)

    @property
    def n_samples(self) -> int:
        """Number of null samples."""
        return len(self.null_samples)

    @cached_property
    def as_low(self) -> np.ndarray:
        """Which null samples are as low as the observed value, or lower (bool, one per sample)."""
        return self.null_samples <= self.observed + self._tolerance

    @cached_property
    def as_high(self) -> np.ndarray:
        """Which null samples are as high as the observed value, or higher (bool, one per sample)."""
        return self.null_samples >= self.observed - self._tolerance

    @property
    def p_value(self) -> float:
        """(r + 1) / (n + 1); two-sided: twice the smaller tail, at most 1."""
        tails = [(int(tail.sum()) + 1) / (self.n_samples + 1) for tail in self._tails]
        return min(1.0, len(tails) * min(tails))

    @property
    def anytime_p_value(self) -> float:
        """A p-value that stays valid when samples are added after looking, as often as one likes.

        See `anytime_p_value` in `modscope.statistics.sequential`. It is a little larger than `p_value`.
        """
        return min(1.0, len(self._tails) * min(anytime_p_value(tail) for tail in self._tails))

    @property
    def floor(self) -> float:
        """The smallest p-value that so many samples can give."""
        return min(1.0, len(self._tails) / (self.n_samples + 1))

    @property
    def z_score(self) -> float | None:
        """(observed - mean) / standard deviation of the null samples; None where they do not vary (see `note`)."""
        if not self._null_varies:
            return None
        return float((self.observed - self.null_samples.mean()) / self.null_samples.std())

    @property
    def effect(self) -> float | None:
        """Distance from the null's mean as a share of it, positive in the direction of the claim.

        (mean - observed) / |mean| for "less", (observed - mean) / |mean| for "greater", its size for "two-sided".
        None where the null's mean is zero.
        """
        mean = float(self.null_samples.mean())
        if abs(mean) <= self._tolerance:
            return None
        share = (self.observed - mean) / abs(mean)
        return {"less": -share, "greater": share, "two-sided": abs(share)}[self.alternative]

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where 95 % of further draws of the observed statistic fall; None for a statistic without randomness."""
        draws = np.array(self.observed_draws)
        if len(draws) < 2 or np.ptp(draws) <= self._tolerance:
            return None
        return prediction_interval(draws)

    @property
    def note(self) -> str | None:
        """What a reader has to know before believing the numbers, or None."""
        notes = []
        if not self._null_varies:
            notes.append("all null samples are equal, so that z is undefined")
        if self._is_far_on_the_other_side:
            notes.append(
                f"the observed value is {abs(self.z_score or 0.0):.1f} standard deviations on the other side of every "
                "null sample: look whether the null model draws what it should"
            )
        if self.floor > 0.05:
            notes.append(f"{self.n_samples} samples cannot give p <= .05")
        if len(self.looks) > 1:
            notes.append(f"samples were added {len(self.looks) - 1} times; the anytime-valid p allows for that")
        return "; ".join(notes) or None

    def extended(self, n_samples: int, *, executor: Executor | None = None) -> Comparison:
        """The same comparison with `n_samples` more samples: those that a longer first run would have drawn.

        To look, and then to draw more, raises false positives: the result counts the looks, and its
        `anytime_p_value` stays valid.

        Raises:
            StatisticsError: If `n_samples` is not positive, or the comparison was read from a file.
        """
        if self.experiment is None:
            raise StatisticsError(
                "this comparison does not hold what it was made from (it comes from a file, or from given samples); "
                "call compare again with more samples"
            )
        _check_n_samples(n_samples)
        more = self.experiment.samples(self.n_samples, self.n_samples + n_samples, executor)
        samples = np.concatenate([self.null_samples, more])
        return replace(self, null_samples=samples, looks=(*self.looks, len(samples)))

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain JSON values."""
        return {
            **self.summary(),
            "interval": None if self.interval is None else list(self.interval),
            "observed_draws": list(self.observed_draws),
            "looks": list(self.looks),
            "null_samples": self.null_samples.tolist(),
        }

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("comparison", self.to_dict())

    def summary(self) -> dict[str, Any]:
        """The numbers that stand in one row of a table."""
        return {
            "null": self.null_name,
            "alternative": self.alternative,
            "observed": self.observed,
            "null_mean": float(self.null_samples.mean()),
            "null_sd": float(self.null_samples.std()),
            "effect": self.effect,
            "z_score": self.z_score,
            "p_value": self.p_value,
            "anytime_p_value": self.anytime_p_value,
            "floor": self.floor,
            "n_samples": self.n_samples,
            "note": self.note,
        }

    def to_frame(self) -> pl.DataFrame:
        """One row: observed value, null's mean and spread, effect, z, p, floor."""
        import polars as pl

        low, high = self.interval or (None, None)
        return pl.DataFrame([{**self.summary(), "interval_low": low, "interval_high": high}])

    def plot(self, ax: Axes | None = None) -> Axes:
        """Histogram of the null samples with a line at the observed value."""
        from modscope.statistics.pictures import plot_comparison

        return plot_comparison(self, ax)

    def __repr__(self) -> str:
        z = "undefined" if self.z_score is None else f"{self.z_score:.2f}"
        return (
            f"Comparison(observed={self.observed:.6g}, null={self.null_name!r}: "
            f"{self.null_samples.mean():.6g} +- {self.null_samples.std():.2g}, z={z}, "
            f"p={self.p_value:.4g} ({self.alternative}, floor {self.floor:.4g}))"
        )

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())

    @property
    def _tails(self) -> list[np.ndarray]:
        """Which samples speak against the claim, for each tail that is looked at."""
        tails = {"less": [self.as_low], "greater": [self.as_high], "two-sided": [self.as_low, self.as_high]}
        return tails[self.alternative]

    @property
    def _tolerance(self) -> float:
        return TIE * max(abs(self.observed), float(np.abs(self.null_samples).max()), 1e-30)

    @property
    def _is_far_on_the_other_side(self) -> bool:
        """Does a one-sided claim fail by so much that rather the null model is wrong?"""
        if self.alternative == "two-sided" or self.z_score is None or not self._tails[0].all():
            return False
        return self.n_samples >= ENOUGH and abs(self.z_score) > FAR

    @property
    def _null_varies(self) -> bool:
        return float(self.null_samples.std()) > self._tolerance


def compare(
    subject: Any,
    statistic: Statistic,
    null: Null,
    *,
    n_samples: int,
    alternative: Alternative,
    rng: Rng = 0,
    executor: Executor | None = None,
    n_observed: int = 5,
) -> Comparison:
    """The statistic of the subject against the same statistic of random versions of it.

    The subject itself and every sample get one draw of the same statistic, so the test is exact whatever that draw's
    own noise. Sample i is the same for any number of workers.

    Args:
        subject: What is tested: a wiring, a graph, labels, masks.
        statistic: `statistic(subject, rng)` -> number. Both functions must use only the given generator.
        null: `null(subject, rng)` -> random subject; see `modscope.nulls.NULL_MODELS`.
        n_samples: Number of null samples; p cannot be below 1 / (n_samples + 1). See `samples_needed`.
        alternative: "less" claims that the observed value is low, "greater" that it is high, or "two-sided".
        rng: Seed, or a generator that one seed is drawn from.
        executor: Where samples are drawn; None = this process.
        n_observed: Draws of the observed statistic, the first of which is tested; the others tell its own noise.

    Raises:
        StatisticsError: If `n_samples` or `n_observed` is not positive, the alternative is unknown, or the statistic
            gives no finite number.
        JobError: If a worker died.

    Source: Phipson & Smyth 2010 for (r + 1) / (n + 1); p-values with ties as in Davison & Hinkley 1997, 4.2.
    """
    _check_n_samples(n_samples)
    if alternative not in ALTERNATIVES:
        raise StatisticsError(f"alternative must be one of {', '.join(ALTERNATIVES)}, got {alternative!r}")
    if n_observed < 1:
        raise StatisticsError(f"n_observed must be at least 1, got {n_observed}")
    experiment = Experiment(subject, statistic, null, seed_of(rng))
    draws = observed_draws(experiment.observed, n_observed)
    return comparison_of(experiment, draws, n_samples, alternative, executor)


def comparison_of(
    experiment: Experiment,
    observed: Sequence[float],
    n_samples: int,
    alternative: Alternative,
    executor: Executor | None,
    description: str = "",
) -> Comparison:
    """The comparison of an experiment whose observed statistic has been drawn already (the first one is tested)."""
    return Comparison(
        observed=observed[0],
        null_samples=experiment.samples(0, n_samples, executor, description),
        alternative=alternative,
        null_name=name_of(experiment.null),
        observed_draws=tuple(observed),
        looks=(n_samples,),
        experiment=experiment,
    )


def _check_n_samples(n_samples: int) -> None:
    if not isinstance(n_samples, Integral) or n_samples < 1:
        raise StatisticsError(f"n_samples must be a whole number of at least 1, got {n_samples!r}")
