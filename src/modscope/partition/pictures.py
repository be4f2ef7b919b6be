"""How does a sweep over numbers of clusters look?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from modscope.statistics.corrections import LEVEL
from modscope.statistics.pictures import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from modscope.partition.bands import Band, Sweep


def plot_sweep(sweep: Sweep, ax: Axes | None = None) -> Axes:
    """n-cut minus the null's mean against the number of clusters, each null model with its band around 0."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=(5, 3.5)).add_subplot()
    ax.axhline(0, color="grey", linewidth=0.8)
    for index, band in enumerate(sweep.values()):
        _draw(band, COLOURS[index % len(COLOURS)], ax)
    ax.set_xticks(sweep.n_clusters)
    ax.set_xlabel("number of clusters")
    ax.set_ylabel("n-cut minus null mean")
    ax.legend(frameon=False, fontsize="small")
    return ax


def _draw(band: Band, colour: str, ax: Axes) -> None:
    """One null model: all its samples (light), 90 % of them (darker), and the network, filled where p <= .05."""
    numbers, mean = np.array(band.n_clusters), band.null_samples.mean(axis=0)
    extremes = band.null_samples.min(axis=0), band.null_samples.max(axis=0)
    for (low, high), alpha in ((extremes, 0.12), ((band.low, band.high), 0.25)):
        ax.fill_between(numbers, low - mean, high - mean, color=colour, alpha=alpha, linewidth=0)
    gap = band.observed[0] - mean
    ax.plot(numbers, gap, color=colour, label=f"{band.null_name}: p in all = {band.p_in_all:.3g}")
    faces = [colour if p <= LEVEL else "white" for p in band.adjusted_p_values]
    ax.scatter(numbers, gap, c=faces, edgecolors=colour, zorder=3)
