"""What is written down about a run: its name, its answers, and what the reader should know?"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from modscope.report.content.part import Count, Part, State, Test


class RunInfo(Part):
    """Which run this is. No clock: the same run gives the same bytes."""

    id: str  # short, unique in a collection: "dense"
    title: str  # heading: "Dense"
    text: str = ""  # one line for readers: "Trained with weight decay 1.0; every weight is in use"
    seed: int | None = None
    hash: str | None = None
    device: str | None = None


class Verdict(Part):
    """One of the four answers."""

    key: Literal["function", "structure", "importance", "bridge"]
    state: State
    sentence: str  # the answer in one line
    reason: str  # why, with numbers
    test: Test | None = None  # the weakest required test; None where nothing was measured


class Reference(Part):
    """A paper."""

    text: str
    url: str = ""


class Texts(Part):
    """Words that the analysis wrote itself."""

    methods: str = ""  # one paragraph, ready for a paper
    python: str = ""  # code that makes this run again
    references: list[Reference] = Field(default_factory=list)


class Warning_(Part):
    """Something that the reader should know."""

    level: Literal["warn", "note"]
    section: Literal["network", "function", "structure", "importance", "bridge", "methods"]
    text: str


class File(Part):
    """A file beside the page."""

    name: str
    path: str = ""
    bytes: Count | None = None
