"""How is written down how far the answers repeat?"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from modscope.masks.mask import Mask, MaskSet
from modscope.masks.metrics import iou
from modscope.partition.agreement import pair_agreements
from modscope.partition.bands import Sweep
from modscope.partition.clusterability import Clusterability


def stability_content(structure: Clusterability, sweep: Sweep | None, masks: MaskSet | None) -> dict[str, Any]:
    """Agreement of each two clusterings, at every number of clusters, and of each two masks of a task."""
    clusterings = {structure.partition.n_clusters: structure.partitions} | ({} if sweep is None else sweep.partitions)
    repeats: list[dict[str, Any]] = [
        {
            "source": f"{k} modules, clustered again",
            "measure": "adjusted Rand index",
            "values": pair_agreements(partitions),
            "chance": 0.0,
        }
        for k, partitions in sorted(clusterings.items())
    ]
    if masks is not None:  # an empty mask shares nothing with anything
        repeats += [_masks_again(masks, name) for name in masks if all(mask.n_kept for mask in masks.seeds(name))]
    return {"repeats": repeats}


def _masks_again(masks: MaskSet, name: str) -> dict[str, Any]:
    pairs = list(combinations(masks.seeds(name), 2))
    return {
        "source": f"mask of {name}, learned again",
        "measure": "shared weights",
        "values": [iou(*pair) for pair in pairs],
        "chance": float(np.mean([chance_iou(*pair) for pair in pairs])) if pairs else None,
    }


def chance_iou(first: Mask, second: Mask) -> float:
    """Intersection over union to be expected of masks that keep as many random weights of every tensor.

    The expectations of both parts are divided, which is exact for large tensors.
    """
    both = sum(
        int(first.kept[name].sum()) * int(second.kept[name].sum()) / max(first.kept[name].numel(), 1)
        for name in first.kept
    )
    return both / max(first.n_kept + second.n_kept - both, 1e-30)
