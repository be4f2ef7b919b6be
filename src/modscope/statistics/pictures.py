"""How does a comparison look?"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from modscope.statistics.comparison import Comparison


def plot_comparison(comparison: Comparison, ax: Axes | None = None) -> Axes:
    """Histogram of the null samples with a line at the observed value, and a band for its own noise."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=(5, 3)).add_subplot()
    ax.hist(
        comparison.null_samples, bins="auto", color="0.75", label=f"{comparison.null_name}: n = {comparison.n_samples}"
    )
    ax.axvline(comparison.observed, color="C3", label=f"observed: p = {comparison.p_value:.3g}")
    if comparison.interval is not None:
        ax.axvspan(*comparison.interval, color="C3", alpha=0.15, linewidth=0)
    ax.set_xlabel("statistic")
    ax.set_ylabel("null samples")
    ax.legend(frameon=False)
    return ax
