"""What is written down about masks?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modscope.report.content.part import Count, Fraction, P, Part


class Share(Part):
    """Which weights two masks keep, in one layer: three fractions of all weights that either keeps."""

    pair: tuple[str, str]  # ids of two tasks
    layer: str | None  # for readers, or the id of a layer: "input → hidden 1"; None: all layers together
    a: Fraction  # kept by the first alone
    shared: Fraction  # kept by both: intersection over union
    b: Fraction
    kept: Count  # weights that either keeps
    random: tuple[float, float, float] | None = None  # shared by random masks of the same size: mean, 2.5 %, 97.5 %
    p: P | None = None
    p_adjusted: P | None = None
    repeat: Fraction | None = None  # shared by two masks of one task (two seeds): the ceiling


class Density(Part):
    """How many of the weights of a layer a mask keeps."""

    task: str
    layer: str | None  # as in `Share`; None: all layers together
    kept: Count
    n: Count  # weights in the layer


class Performance(Part):
    """Accuracy on every task with one mask in place."""

    label: str  # "keep left", "remove left", "no mask"
    kind: Literal["none", "keep", "remove", "random"]
    task: str | None = None  # whose mask
    accuracy: list[float | None]  # one per task


class Masks(Part):
    """Function: which weights does a task need?"""

    share: list[Share] = Field(default_factory=list)
    density: list[Density] = Field(default_factory=list)
    performance: list[Performance] = Field(default_factory=list)
