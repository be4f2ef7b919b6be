"""How does a comparison look?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from modscope.statistics.comparison import Comparison

FEW = 10  # samples that a histogram would say nothing about
COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#9d755d", "#bab0ac")  # told apart by colour-blind readers too


def plot_comparison(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Histogram of the null samples with a line at the observed value, and a band for its own noise."""
    return plot_comparisons({comparison.null_name: comparison}, ax)


def plot_comparisons(
    comparisons: Mapping[str, Comparison], ax: Axes | None = None, *, label: str = "statistic"
) -> Axes:
    """Histogram of the null samples of each comparison of one observed value, with a line at that value."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=(5, 3)).add_subplot()
    for index, (name, comparison) in enumerate(comparisons.items()):
        legend = f"{name}: p = {comparison.p_value:.3g} (n = {comparison.n_samples})"
        _draw_samples(comparison, index, legend, ax)
    first = next(iter(comparisons.values()))
    ax.axvline(first.observed, color="black", label="observed")
    if first.interval is not None:
        ax.axvspan(*first.interval, color="black", alpha=0.15, linewidth=0)
    ax.set_xlabel(label)
    ax.set_ylabel("null samples")
    ax.ticklabel_format(axis="x", useOffset=False)
    ax.locator_params(axis="x", nbins=6)
    ax.margins(y=0.35)  # room for the legend
    ax.legend(frameon=False, fontsize="small")
    return ax


def _draw_samples(comparison: Comparison, index: int, legend: str, ax: Axes) -> None:
    """A histogram; samples too few, or too equal, for one are marks of height 1."""
    samples, colour = comparison.null_samples, COLOURS[index % len(COLOURS)]
    if len(samples) < FEW or np.ptp(samples) <= 1e-6 * np.abs(samples).max():
        ax.vlines(samples, 0, 1, color=colour, label=legend)
    else:
        ax.hist(samples, bins="auto", color=colour, alpha=0.6, label=legend)
