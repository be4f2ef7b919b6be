"""What is written down about a network, its data and its tasks?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modscope.report.content.part import Count, Fraction, Part


class ModelInfo(Part):
    """The network in numbers."""

    name: str  # "MLP 128-128-128-128-20"
    n_parameters: Count
    n_nonzero: Count | None = None  # parameters that are not zero
    n_units: Count
    n_isolated: Count = 0  # units without any weight
    unsupported: list[str] = Field(default_factory=list)


class DataInfo(Part):
    """The examples it was trained and tested on."""

    name: str
    n_train: Count | None = None
    n_test: Count | None = None
    hash: str | None = None


class TaskInfo(Part):
    """A task; the order of `tasks` is the order of every list "per task"."""

    id: str  # "left"
    label: str  # for readers: "left digit"
    metric: str = "accuracy"
    chance: Fraction | None = None
    accuracy: Fraction | None = None  # of the whole network


class Layer(Part):
    """A unit group, in order of depth."""

    id: str  # "0", "fc1", "output"
    label: str | None = None  # for readers; None: the id
    kind: Literal["input", "hidden", "stream", "output"]
    n: Count
    shape: list[int] | None = None  # [rows, columns] of an input that is a picture
    # captions below the picture, left to right: ["left digit", "right digit"]
    sides: list[str] = Field(default_factory=list)
    # one per unit, where units have names ("L0" .. "R9"); empty: numbers
    unit_labels: list[str] = Field(default_factory=list)


class Module(Part):
    """A cluster. Its place in `modules` is its label in the partition; its letter is made from that place."""

    n: Count
    by_layer: list[int]  # units in each of `layers`
    name: str = ""  # a note of the user


class Units(Part):
    """One entry per unit. At most 3,000 are drawn one by one."""

    layer: list[int]  # index into `layers`
    index: list[int]  # number of the unit within its layer
    module: list[int]  # index into `modules`; -1: in no module
    degree: list[float] = Field(default_factory=list)  # summed weight; empty: not known


class Edges(Part):
    """The strongest weights (the page draws the 1,800 strongest), as indices into `units`."""

    source: list[int]
    target: list[int]
    weight: list[float]  # size of the weight, > 0
    n_total: Count  # how many weights there are
