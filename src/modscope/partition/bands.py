"""How does the n-cut stand to chance at several numbers of clusters?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from modscope.errors import StatisticsError
from modscope.partition.agreement import mean_agreement
from modscope.partition.partition import Partition
from modscope.records import Record, record_of
from modscope.statistics.comparison import Comparison
from modscope.statistics.corrections import LEVEL, max_t

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

BAND = (0.05, 0.95)  # quantiles of the null samples


@dataclass(frozen=True, eq=False)
class Band(Mapping[int, Comparison]):
    """One null model for several numbers of clusters: a mapping number of clusters -> Comparison.

    All of them are read from the same null samples. So "is it clustered at any of these numbers?" has one p-value,
    `p_in_all`, and `adjusted_p_values` say at which, both corrected for having looked at several.
    """

    null_name: str
    n_clusters: tuple[int, ...]
    observed: Float[np.ndarray, "draws numbers"]  # the first row is tested
    null_samples: Float[np.ndarray, "samples numbers"]

    def __getitem__(self, n_clusters: int) -> Comparison:
        if n_clusters not in self.n_clusters:
            raise StatisticsError(f"{n_clusters} clusters were not tried; {_listed(self.n_clusters)} were")
        return self._comparisons[self.n_clusters.index(n_clusters)]

    def __iter__(self) -> Iterator[int]:
        return iter(self.n_clusters)

    def __len__(self) -> int:
        return len(self.n_clusters)

    @cached_property
    def _comparisons(self) -> tuple[Comparison, ...]:
        looks = (len(self.null_samples),)
        return tuple(
            Comparison(float(draws[0]), samples, "less", self.null_name, tuple(map(float, draws)), looks)
            for draws, samples in zip(self.observed.T, self.null_samples.T, strict=True)
        )

    @property
    def low(self) -> Float[np.ndarray, " numbers"]:
        """5 % of the null samples lie below."""
        low: np.ndarray = np.quantile(self.null_samples, BAND[0], axis=0)
        return low

    @property
    def high(self) -> Float[np.ndarray, " numbers"]:
        """5 % of the null samples lie above."""
        high: np.ndarray = np.quantile(self.null_samples, BAND[1], axis=0)
        return high

    @cached_property
    def adjusted_p_values(self) -> Float[np.ndarray, " numbers"]:
        """One for each number of clusters, corrected for all of them (Westfall & Young's step-down max-T)."""
        return max_t(-self.observed[0], -self.null_samples)

    @property
    def p_in_all(self) -> float:
        """How often a random network has so low an n-cut at any of the numbers, each by its own null's spread."""
        return float(self.adjusted_p_values.min())

    @property
    def found(self) -> tuple[int, ...]:
        """The numbers of clusters at which the network is clustered: adjusted p <= .05."""
        return tuple(k for k, p in zip(self.n_clusters, self.adjusted_p_values, strict=True) if p <= LEVEL)

    @property
    def best(self) -> int:
        """The number of clusters at which the n-cut lies furthest below the null's mean, as a share of that."""
        effects = [-np.inf if test.effect is None else test.effect for test in self.values()]
        return self.n_clusters[int(np.argmax(effects))]

    @property
    def words(self) -> str:
        """Where the effect is largest, to go on with a sentence; empty where there is none."""
        effect = self[self.best].effect or 0.0
        return f", n-cut {100 * effect:.1f} % below chance at {self.best}" if effect > 0 else ""

    def rows(self) -> list[dict[str, Any]]:
        """The numbers of every comparison."""
        return [
            {
                "null": self.null_name,
                "n_clusters": k,
                "n_cut": test.observed,
                "null_mean": float(test.null_samples.mean()),
                "null_low": float(low),
                "null_high": float(high),
                "null_min": float(test.null_samples.min()),
                "null_max": float(test.null_samples.max()),
                "effect": test.effect,
                "z_score": test.z_score,
                "p_value": test.p_value,
                "p_adjusted": float(p),
                "p_in_all": self.p_in_all,
                "floor": test.floor,
                "n_samples": test.n_samples,
            }
            for (k, test), low, high, p in zip(self.items(), self.low, self.high, self.adjusted_p_values, strict=True)
        ]


@dataclass(frozen=True, eq=False)
class Sweep(Mapping[str, Band]):
    """The n-cut for several numbers of clusters against null models: a mapping null name -> Band."""

    bands: dict[str, Band]
    partitions: dict[int, tuple[Partition, ...]]  # number of clusters -> clusterings, the first of which is tested

    def __getitem__(self, null: str) -> Band:
        if null not in self.bands:
            raise StatisticsError(f"null model '{null}' was not run; {', '.join(self.bands)} were")
        return self.bands[null]

    def __contains__(self, null: object) -> bool:
        return null in self.bands

    def __iter__(self) -> Iterator[str]:
        return iter(self.bands)

    def __len__(self) -> int:
        return len(self.bands)

    @property
    def n_clusters(self) -> tuple[int, ...]:
        """The numbers of clusters that were tried, ascending."""
        return tuple(self.partitions)

    @property
    def n_cuts(self) -> dict[int, float]:
        """Number of clusters -> n-cut."""
        return {k: test.observed for k, test in next(iter(self.values())).items()}

    @cached_property
    def stability(self) -> dict[int, float | None]:
        """Number of clusters -> mean agreement (adjusted Rand index) of two clusterings; None if one was done."""
        return {k: mean_agreement(partitions) for k, partitions in self.partitions.items()}

    @property
    def found(self) -> tuple[int, ...]:
        """The numbers of clusters at which the network is clustered under every null model (adjusted p <= .05)."""
        return tuple(k for k in self.n_clusters if all(k in band.found for band in self.values()))

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        tried = f"of the {len(self.n_clusters)} numbers of clusters tried ({_listed(self.n_clusters)})"
        if self.found:
            every = "every one " if self.found == self.n_clusters else ""
            where = f"more clustered than every null at {every or _listed(self.found) + ' '}{tried}"
        else:
            where = f"more clustered than every null at none {tried}"
        bands = [f"{name}: p in all = {band.p_in_all:.3g}{band.words}" for name, band in self.items()]
        return "; ".join([where, *bands])

    def to_frame(self) -> pl.DataFrame:
        """One row per null model and number of clusters: n-cut, null's mean, band and extremes, effect, z, p."""
        import polars as pl

        stability = {"stability": pl.Float64}
        rows = [{**row, "stability": self.stability[row["n_clusters"]]} for row in self._rows()]
        return pl.DataFrame(rows, schema_overrides=stability, infer_schema_length=None)

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain JSON values."""
        return {
            "sentence": self.sentence,
            "found": list(self.found),
            "n_clusters": list(self.n_clusters),
            "n_cuts": list(self.n_cuts.values()),
            "stability": list(self.stability.values()),
            "labels": [partitions[0].labels.tolist() for partitions in self.partitions.values()],
            "rows": self._rows(),
            "null_samples": {name: band.null_samples.tolist() for name, band in self.items()},
        }

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("sweep", self.to_dict())

    def plot(self, ax: Axes | None = None) -> Axes:
        """n-cut minus the null's mean against the number of clusters, with every null model's band.

        Dark: 90 % of the null samples; light: all of them. A filled point holds after correction.
        """
        from modscope.partition.pictures import plot_sweep

        return plot_sweep(self, ax)

    def __repr__(self) -> str:
        return f"Sweep({self.sentence})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(self.sentence)}</p>{self.to_frame()._repr_html_()}"

    def _rows(self) -> list[dict[str, Any]]:
        return [row for band in self.values() for row in band.rows()]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
