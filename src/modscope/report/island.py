"""Which numbers does the page's script draw from?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from modscope.records import Json
from modscope.report.content import Analysis, Edges, NCut, Tests, Units
from modscope.report.words import letter

MAX_EDGES = 1800
MAX_UNITS = 3000
MAX_SAMPLES = 1000


def drawn(analysis: Analysis) -> dict[str, Json]:
    """The parts of an analysis that are drawn, as plain JSON: the strongest weights, at most 1,000 null samples."""
    parts = ("masks", "lesions", "bridge", "stability")
    found: dict[str, Json] = {name: _measured(getattr(analysis, name)) for name in parts}
    return found | {
        "id": analysis.run.id,
        "title": analysis.run.title,
        "tasks": [task.model_dump() for task in analysis.tasks],
        "layers": [layer.model_dump() | {"label": layer.label or layer.id} for layer in analysis.layers],
        "modules": [module.model_dump() | {"letter": letter(i)} for i, module in enumerate(analysis.modules)],
        "units": analysis.units.model_dump() if isinstance(analysis.units, Units) else None,
        "one_by_one": isinstance(analysis.units, Units) and len(analysis.units.layer) <= MAX_UNITS,
        "edges": _strongest(analysis.edges) if isinstance(analysis.edges, Edges) else None,
        "ncut": _ncut(analysis.tests.ncut) if isinstance(analysis.tests, Tests) else None,
        "sweep": _measured(analysis.tests.sweep) if isinstance(analysis.tests, Tests) else None,
    }


def _measured(part: object) -> Json:
    """The part as plain JSON; None where it was not measured."""
    from modscope.report.content import Missing, Part

    return part.model_dump() if isinstance(part, Part) and not isinstance(part, Missing) else None


def _strongest(edges: Edges) -> dict[str, Json]:
    order = np.argsort(-np.asarray(edges.weight), kind="stable")[:MAX_EDGES]
    kept = {name: np.asarray(getattr(edges, name))[order].tolist() for name in ("source", "target", "weight")}
    return {**kept, "n_total": edges.n_total}


def _ncut(ncut: object) -> Json:
    if not isinstance(ncut, NCut):
        return None
    found = ncut.model_dump()
    for null in found["nulls"]:
        null["samples"] = _thinned(null["samples"])
    return found


def _thinned(samples: Sequence[float]) -> list[float]:
    """At most 1,000 samples, evenly through their order, so that the histogram keeps its shape."""
    if len(samples) <= MAX_SAMPLES:
        return list(samples)
    at = np.linspace(0, len(samples) - 1, MAX_SAMPLES).round().astype(int)
    return [float(value) for value in np.sort(np.asarray(samples))[at]]
