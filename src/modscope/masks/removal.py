"""What does a network lose without the weights of a mask, and which random weights compare with them?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from modscope.masks.applied import applied
from modscope.masks.mask import Mask
from modscope.tasks.task import Task, evaluate


def random_like(mask: Mask, strata: Mapping[str, Tensor], rng: np.random.Generator) -> Mask:
    """As many random weights as the mask keeps in each stratum of each tensor; stratum 0 is left out."""
    drawn = {}
    for name, kept in mask.kept.items():
        flat_strata = strata[name].cpu().reshape(-1).numpy()
        flat_kept = kept.cpu().reshape(-1).numpy()
        flat = np.zeros(len(flat_kept), dtype=bool)
        for stratum in np.unique(flat_strata[flat_strata > 0]):
            members = np.flatnonzero(flat_strata == stratum)
            flat[rng.choice(members, size=int(flat_kept[members].sum()), replace=False)] = True
        drawn[name] = torch.from_numpy(flat).view(kept.shape)
    return Mask(drawn)


def accuracy_without(model: nn.Module, removed: Mask, tasks: Sequence[Task]) -> Float[np.ndarray, " tasks"]:
    """Accuracy on every task with the weights of one mask removed."""
    with applied(model, ~removed):
        return np.array([evaluate(model, task).accuracy for task in tasks])
