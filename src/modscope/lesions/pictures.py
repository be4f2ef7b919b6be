"""How does a lesion matrix look?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from modscope.lesions.importance import Importance


def plot_importance(importance: Importance, ax: Axes | None = None) -> Axes:
    """Rows are the parts, columns the tasks, colour the drop beyond that of random units; a star marks a finding."""
    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=(1.5 + len(importance.tasks), 1 + 0.3 * len(importance.parts))).add_subplot()
    beyond = importance.drops - importance.control_drops.mean(axis=0)
    limit = max(float(np.abs(beyond).max()), 1e-12)
    image = ax.imshow(beyond, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    for row, column in np.ndindex(*beyond.shape):
        star = " *" if importance.is_important[row, column] else ""
        ax.text(column, row, f"{importance.drops[row, column]:.2f}{star}", ha="center", va="center", fontsize=8)
    ax.set_xticks(range(len(importance.tasks)), importance.tasks)
    ax.set_yticks(range(len(importance.parts)), [part.name for part in importance.parts])
    ax.figure.colorbar(image, ax=ax, label=f"{importance.metric} drop beyond random units")
    return ax
