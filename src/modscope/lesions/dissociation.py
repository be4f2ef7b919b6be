"""Do two tasks each need a cluster that the other does not?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from modscope.statistics import Comparison

NULL_NAME = "random partitions with the same sub-cluster sizes"


@dataclass(frozen=True, eq=False)
class DissociatedClusters:
    """Two tasks and the two clusters that tell them apart best.

    The statistic is the smaller of the two preferences: how much more the first task loses with the first cluster than
    the second task does, and the other way round; drops standardised by their controls. High = each task has its own.
    """

    tasks: tuple[str, str]
    clusters: tuple[int, int]
    comparison: Comparison

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain JSON values."""
        return {"tasks": list(self.tasks), "clusters": list(self.clusters), "comparison": self.comparison.to_dict()}


def dissociations(
    drops: Float[np.ndarray, "partitions clusters tasks"], clusters: Sequence[int], tasks: Sequence[str]
) -> tuple[DissociatedClusters, ...]:
    """One for each pair of tasks.

    Args:
        drops: Standardised drops with each cluster of the observed partition (row 0) and of random ones.
        clusters: Labels of the clusters.
        tasks: Names of the tasks.
    """
    found = []
    for a, b in combinations(range(len(tasks)), 2):
        preference = drops[:, :, a] - drops[:, :, b]
        # For every partition its own best pair: the observed one gets no advantage from having been searched.
        best = np.minimum(preference.max(axis=1), -preference.min(axis=1))
        pair = clusters[preference[0].argmax()], clusters[preference[0].argmin()]
        comparison = Comparison(float(best[0]), best[1:], "greater", NULL_NAME, looks=(len(best) - 1,))
        found.append(DissociatedClusters((tasks[a], tasks[b]), pair, comparison))
    return tuple(found)
