"""What is written down about masks against modules?"""

from __future__ import annotations

from pydantic import Field

from modscope.report.content.part import Count, P, Part, Test


class Cell(Part):
    """How much more a task's mask keeps of one module than of the rest, in log-odds."""

    control: str  # id of one of `controls`
    task: str
    module: Count
    log_odds: float | None
    se: float | None = None
    p_adjusted: P | None = None


class Control(Part):
    """What is held fixed when masks and modules are compared."""

    id: str  # "raw", "layer", "degree"
    label: str  # for readers: "nothing", "layer", "layer, degree and weight size"


class Agreement(Part):
    """Agreement of all masks and modules together, under one control."""

    control: str
    test: Test


class Bridge(Part):
    """Do structure and function agree?"""

    controls: list[Control]
    cells: list[Cell]
    agreement: list[Agreement] = Field(default_factory=list)
