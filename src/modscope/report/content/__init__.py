"""What must a record hold, so that a page can be written from it?

A record of kind "analysis" holds one `Analysis`: one network, analysed in full. A record of kind "collection" holds a
`Collection`: several of them side by side. All values are plain JSON; fractions are in [0, 1]; the page prints percent.

A part that was not measured is `None`, or `{"why": "..."}` with the reason in words. The page computes no statistics:
every effect, interval and p comes from here. Misspelt keys inside a part are refused; a record may hold more parts
than the page shows.
"""

from modscope.report.content.analysis import Analysis, Collection
from modscope.report.content.bridge import Agreement, Bridge, Cell, Control
from modscope.report.content.lesions import Lesion, Lesions
from modscope.report.content.masks import Density, Masks, Performance, Share
from modscope.report.content.network import DataInfo, Edges, Layer, ModelInfo, Module, TaskInfo, Units
from modscope.report.content.part import Count, Fraction, Missing, P, Part, State, Test
from modscope.report.content.run import File, Reference, RunInfo, Texts, Verdict, Warning_
from modscope.report.content.stability import Repeats, Stability
from modscope.report.content.structure import Gap, NCut, Null, Sweep, SweepBand, SweepPoint, Tests

__all__ = [
    "Agreement",
    "Analysis",
    "Bridge",
    "Cell",
    "Collection",
    "Control",
    "Count",
    "DataInfo",
    "Density",
    "Edges",
    "File",
    "Fraction",
    "Gap",
    "Layer",
    "Lesion",
    "Lesions",
    "Masks",
    "Missing",
    "ModelInfo",
    "Module",
    "NCut",
    "Null",
    "P",
    "Part",
    "Performance",
    "Reference",
    "Repeats",
    "RunInfo",
    "Share",
    "Stability",
    "State",
    "Sweep",
    "SweepBand",
    "SweepPoint",
    "TaskInfo",
    "Test",
    "Tests",
    "Texts",
    "Units",
    "Verdict",
    "Warning_",
]
