"""What is written down about how far a result repeats?"""

from __future__ import annotations

from pydantic import Field

from modscope.report.content.part import Part


class Repeats(Part):
    """Agreement of each two of several runs of one thing: 1 is the same answer."""

    source: str  # for readers: "4 modules, clustered again"
    measure: str  # "adjusted Rand index", "shared weights"
    values: list[float] = Field(default_factory=list)  # one per pair of runs; empty: done once
    chance: float | None = None  # what random answers of the same size give


class Stability(Part):
    """Would another seed say the same?"""

    repeats: list[Repeats]
