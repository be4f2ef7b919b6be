"""Which cluster does each unit belong to?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True, eq=False)
class Partition:
    """Clusters that cover the units; label -1 = left out of every cluster."""

    labels: Int[np.ndarray, " units"]
