"""What is written down about clusters and their null models?"""

from __future__ import annotations

from modscope.report.content.part import Count, Missing, Part, Test


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


class Tests(Part):
    """Tests of structure."""

    ncut: NCut | Missing | None = None
