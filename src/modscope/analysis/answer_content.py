"""How are the four answers written down, with the numbers behind them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modscope.alignment import Alignment
from modscope.analysis.verdicts import Verdict, excess, null_label
from modscope.lesions.importance import Importance
from modscope.masks.mask import MaskSet
from modscope.masks.overlap import ALL, Overlap, OverlapRow
from modscope.masks.specialization import Specialization
from modscope.nulls import NULL_MODELS
from modscope.partition.bands import Sweep
from modscope.partition.clusterability import STRICTER, WEAKER, Clusterability
from modscope.records import plain
from modscope.statistics import Comparison

UNITS = {
    "function": "accuracy lost on the own task beyond that on the other, when a mask's weights are removed",
    "structure": "n-cut below that of random networks",
    "importance": "drop with a module silenced, in standard deviations of random lesions",
    "bridge": "share of the masks' variation that modules explain",
}
CONTROLS = [
    {"id": "raw", "label": "layer"},
    {"id": "degree", "label": "layer, degree and weight size"},
]


def verdict_content(verdict: Verdict) -> dict[str, Any]:
    """One of the four lines."""
    test = None if verdict.test is None else comparison_content(verdict.test, UNITS[verdict.key])
    if test is not None and verdict.key == "function":
        test["percent"] = True
    return {
        "key": verdict.key,
        "state": verdict.state,
        "sentence": verdict.sentence,
        "reason": verdict.reason,
        "test": test,
    }


def comparison_content(test: Comparison, unit: str) -> dict[str, Any]:
    """A comparison as an effect: observed value beyond the null's mean, positive in the direction of the claim."""
    mean = float(test.null_samples.mean())
    sign = -1.0 if test.alternative == "less" else 1.0
    null = sign * (test.null_samples - mean)
    interval = None if test.interval is None else sorted(sign * (end - mean) for end in test.interval)
    return {
        "effect": excess(test),
        "unit": unit,
        "low": None if interval is None else interval[0],
        "high": None if interval is None else interval[1],
        "null_mean": 0.0,
        "null_low": float(np.quantile(null, 0.025)),
        "null_high": float(np.quantile(null, 0.975)),
        "z": test.z_score,
        "p": test.p_value,
        "n_null": test.n_samples,
        "p_floor": test.floor,
        "sided": test.alternative,
    }


def structure_content(
    clusterability: Clusterability, sweep: Sweep | None = None, why_no_sweep: str = "Not tried."
) -> dict[str, Any]:
    """The n-cut and its null samples, at the tested number of clusters and at others."""
    nulls = [
        {
            "id": name,
            "label": null_label(name),
            "keeps": (NULL_MODELS[name].__doc__ or "").strip().split("\n")[0] if name in NULL_MODELS else "",
            "samples": test.null_samples.tolist(),
            "test": comparison_content(test, UNITS["structure"]),
            "is_required": name in (WEAKER, STRICTER),
        }
        for name, test in clusterability.items()
    ]
    n_cut = {"observed": clusterability.n_cut, "k": clusterability.partition.n_clusters, "nulls": nulls}
    return {"ncut": n_cut, "sweep": {"why": why_no_sweep} if sweep is None else sweep_content(sweep)}


def sweep_content(sweep: Sweep) -> dict[str, Any]:
    """The n-cut at several numbers of clusters, as distances from every null's mean."""
    bands = [
        {
            "id": name,
            "label": null_label(name),
            "p_in_all": band.p_in_all,
            "n_null": len(band.null_samples),
            "gaps": [_gap(row) for row in band.rows()],
        }
        for name, band in sweep.items()
    ]
    points = [{"k": k, "ncut": n_cut, "stability": sweep.stability[k]} for k, n_cut in sweep.n_cuts.items()]
    return {"points": points, "bands": bands}


def _gap(row: Mapping[str, Any]) -> dict[str, Any]:
    mean = row["null_mean"]
    ends = {name: row[f"null_{name}"] - mean for name in ("low", "high", "min", "max")}
    tests = {"z": row["z_score"], "p": row["p_value"], "p_adjusted": row["p_adjusted"]}
    return {"gap": row["n_cut"] - mean, **ends, **tests}


def masks_content(mask_set: MaskSet, specialization: Specialization | None) -> dict[str, Any]:
    """Which weights every task needs, how far they are shared, and what masks and inverse masks can do."""
    overlap = None if specialization is None else specialization.overlap
    return {
        "density": [row for name in mask_set for row in _densities(mask_set, name)],
        "share": [] if overlap is None else _shares(overlap),
        "performance": [] if specialization is None else _performance(specialization),
    }


def lesions_content(importance: Importance) -> dict[str, Any]:
    """What every task loses with every module, beside random units."""
    rows = [
        {
            "module": module,
            "layer": part.group,
            "n_units": len(part.unit_ids),
            "task": task,
            "drop": float(importance.drops[i, j]),
            **_null_band(importance.control_drops[:, i, j]),
            "p": float(importance.p_values[i, j]),
            "p_adjusted": float(importance.adjusted_p_values[i, j]),
        }
        for i, (part, module) in enumerate(zip(importance.parts, _places(importance), strict=True))
        for j, task in enumerate(importance.tasks)
    ]
    together = None if importance.combined is None else comparison_content(importance.combined, UNITS["importance"])
    return {"ablation": importance.value, "rows": rows, "test": together}


def bridge_content(alignment: Alignment) -> dict[str, Any]:
    """How much more every task's mask keeps of every module than of the other units."""
    log_odds, errors = plain(alignment.log_odds, undefined_as_null=True), plain(alignment.standard_errors)
    p_by_control = {"raw": alignment.p_values, "degree": alignment.controlled_p_values}
    cells = [
        {
            "control": control,
            "task": task,
            "module": module,
            "log_odds": log_odds[i][module],
            "se": errors[i][module],
            "p_adjusted": float(p_values[i, module]),
        }
        for control, p_values in p_by_control.items()
        for i, task in enumerate(alignment.tasks)
        for module in range(len(alignment.clusters))
    ]
    tests = {"raw": alignment.raw, "degree": alignment.controlled}
    agreement = [{"control": name, "test": comparison_content(test, UNITS["bridge"])} for name, test in tests.items()]
    return {"controls": CONTROLS, "cells": cells, "agreement": agreement}


def _densities(mask_set: MaskSet, name: str) -> list[dict[str, Any]]:
    mask = mask_set[name]
    rows = [(parameter, int(kept.sum()), kept.numel()) for parameter, kept in mask.kept.items()]
    return [
        {"task": name, "layer": parameter, "kept": kept, "n": n}
        for parameter, kept, n in [*rows, (None, mask.n_kept, mask.n_weights)]
    ]


def _shares(overlap: Overlap) -> list[dict[str, Any]]:
    return [_share(row) for row in overlap.rows if row.n_kept]


def _share(row: OverlapRow) -> dict[str, Any]:
    own = (1 - row.overlap) / 2  # both masks are cut to one size
    return {
        "pair": [row.first, row.second],
        "layer": None if row.parameter == ALL else row.parameter,
        "a": own,
        "shared": row.overlap,
        "b": own,
        "kept": round(2 * row.n_kept / (1 + row.overlap)),
        "random": [row.chance, row.chance_low, row.chance_high],
        "p": row.p_below,
        "repeat": row.ceiling,
    }


def _performance(specialization: Specialization) -> list[dict[str, Any]]:
    rows = [{"label": "whole network", "kind": "none", "accuracy": specialization.whole_accuracy.tolist()}]
    kinds: Sequence[tuple[str, np.ndarray]] = (
        ("keep", specialization.mask_accuracy),
        ("remove", specialization.inverse_accuracy),
    )
    for kind, table in kinds:
        for task, accuracy in zip(specialization.tasks, table, strict=True):
            rows.append({"label": f"{kind} {task}", "kind": kind, "task": task, "accuracy": accuracy.tolist()})
    return rows


def _null_band(samples: np.ndarray) -> dict[str, float]:
    low, high = np.quantile(samples, [0.025, 0.975])
    return {"null_mean": float(samples.mean()), "null_low": float(low), "null_high": float(high)}


def _places(importance: Importance) -> list[int]:
    """The place of every part's cluster among all clusters."""
    clusters = sorted({part.cluster for part in importance.parts})
    return [clusters.index(part.cluster) for part in importance.parts]
