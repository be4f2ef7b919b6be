"""What is written down about clusters and their null models?"""

from __future__ import annotations

from pydantic import model_validator

from modscope.report.content.part import Count, Missing, P, Part, Test


class Null(Part):
    """Null samples of the n-cut."""

    id: str  # "shuffle_weights"
    label: str  # for readers: "weights shuffled within each layer"
    keeps: str = ""
    samples: list[float]
    test: Test
    is_required: bool = True


class NCut(Part):
    """Structure: observed n-cut and its nulls."""

    observed: float
    k: Count
    nulls: list[Null]


class SweepPoint(Part):
    """The network itself at one number of modules."""

    k: Count
    ncut: float
    stability: float | None = None  # mean agreement of repeated clusterings; None: done once


class Gap(Part):
    """The n-cut at one number of modules, and the null samples, as distances from the null's mean."""

    gap: float
    low: float  # 5 % of the null samples lie below
    high: float  # 5 % of the null samples lie above
    min: float
    max: float
    z: float | None = None
    p: P
    p_adjusted: P  # corrected for all numbers of modules


class SweepBand(Part):
    """One null model at all numbers of modules, which share its samples."""

    id: str
    label: str
    p_in_all: P  # how often a random network is as clustered at any of the numbers
    n_null: Count
    gaps: list[Gap]  # one per point


class Sweep(Part):
    """The n-cut against the number of modules."""

    points: list[SweepPoint]
    bands: list[SweepBand]

    @model_validator(mode="after")
    def _has_a_gap_for_every_point(self) -> Sweep:
        if any(len(band.gaps) != len(self.points) for band in self.bands):
            raise ValueError(f"every band needs one gap per point ({len(self.points)})")
        return self


class Tests(Part):
    """Tests of structure."""

    ncut: NCut | Missing | None = None
    sweep: Sweep | Missing | None = None
