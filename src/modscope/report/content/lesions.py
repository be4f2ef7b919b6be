"""What is written down about silenced units?"""

from __future__ import annotations

from modscope.report.content.part import Count, P, Part, Test


class Lesion(Part):
    """Accuracy lost when a module, or its part in one layer, is silenced, against random units of the same layer."""

    module: Count  # index into `modules`
    layer: str | None = None  # id of a layer; None: the whole module at once
    n_units: Count
    task: str
    drop: float  # accuracy lost, fraction
    null_mean: float | None = None  # lost by random sets of the same size
    null_low: float | None = None
    null_high: float | None = None
    p: P | None = None
    p_adjusted: P | None = None


class Lesions(Part):
    """Importance: does the network need its modules?"""

    ablation: str  # "zero", "mean", "resample"
    rows: list[Lesion]
    test: Test | None = None  # the modules together
    why: str = ""  # remark, for instance on modules that could not be tested
