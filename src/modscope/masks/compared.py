"""What do masks of two tasks have in common in one parameter, and what would random weights have?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modscope.masks.chance import random_intersection
from modscope.masks.mask import Mask


def common_strata(masks: Sequence[Mask], names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """By parameter name, the decile of each weight's size, 0 where one of the masks' tasks does not feel it.

    One stratum for all weights where no mask knows better.
    """
    known = [mask.strata for mask in masks if mask.strata is not None]
    common: dict[str, Tensor] = {}
    for name in masks[0].names if names is None else names:
        if not known:
            common[name] = torch.ones_like(masks[0].kept[name], dtype=torch.uint8, device="cpu")
            continue
        common[name] = known[0][name].cpu()
        for strata in known[1:]:
            common[name] = torch.minimum(common[name], strata[name].cpu())
    return common


@dataclass(frozen=True, eq=False)
class Compared:
    """All masks of a pair of tasks, compared with each other in one parameter or in all."""

    n_eligible: int
    n_kept: int
    intersection: Int[np.ndarray, "masks masks"]
    expected: Float[np.ndarray, "masks masks"]
    expected_plain: float
    counts: tuple[tuple[Int[np.ndarray, "masks _strata"], Int[np.ndarray, " _strata"]], ...]
    chosen: Bool[np.ndarray, "masks _weights"]  # what every mask keeps after the cut; empty for all parameters together
    strata: Int[np.ndarray, " _weights"]

    @staticmethod
    def all_of(parts: Sequence[Compared]) -> Compared:
        """All parameters together."""
        return Compared(
            sum(part.n_eligible for part in parts),
            sum(part.n_kept for part in parts),
            np.sum([part.intersection for part in parts], axis=0),
            np.sum([part.expected for part in parts], axis=0),
            sum(part.expected_plain for part in parts),
            tuple(counts for part in parts for counts in part.counts),
            np.zeros((len(parts[0].intersection), 0), dtype=bool),
            np.zeros(0, dtype=np.int64),
        )

    @cached_property
    def iou(self) -> Float[np.ndarray, "masks masks"]:
        """Intersection over union of every two masks."""
        return iou_of(self.intersection, self.n_kept)

    @cached_property
    def chance(self) -> Float[np.ndarray, "masks masks"]:
        """What random weights of the same sizes would have."""
        return iou_of(self.expected, self.n_kept)


def compared(masks: Sequence[Mask], name: str, rng: np.random.Generator) -> Compared:
    """All masks in one parameter, each cut to the size of the smallest among the weights that all their tasks feel."""
    strata = _flat_strata(masks, name)
    eligible = strata > 0
    n_kept = min(int((mask.kept[name].cpu().reshape(-1).numpy() & eligible).sum()) for mask in masks)
    chosen = np.stack([_largest(mask, name, eligible, n_kept, rng) for mask in masks])  # (masks, weights)
    n_strata = int(strata.max(initial=0)) + 1
    sizes = np.bincount(strata, minlength=n_strata)[1:]
    counts = np.stack([np.bincount(strata[row], minlength=n_strata)[1:] for row in chosen])
    as_numbers = chosen.astype(np.float32)
    intersection = np.rint(as_numbers @ as_numbers.T).astype(np.int64)
    used = sizes > 0
    expected = (counts[:, None, used] * counts[None, :, used] / sizes[used]).sum(axis=2)
    n_eligible = int(eligible.sum())
    return Compared(
        n_eligible,
        n_kept,
        intersection,
        expected,
        n_kept**2 / max(n_eligible, 1),
        ((counts[:, used], sizes[used]),),
        chosen,
        strata,
    )


def iou_of(intersection: np.ndarray, n_kept: int) -> np.ndarray:
    """Intersection over union of two sets of `n_kept` each; NaN if empty."""
    union = 2 * n_kept - intersection
    filled = np.full(np.shape(union), np.nan)
    return np.asarray(np.divide(intersection, union, out=filled, where=union > 0))


def exact_p(compared: Compared, first: int, second: int) -> tuple[float, float, int, int]:
    """How matched random sets intersect, exactly.

    The probabilities that they do so at least, and at most, as much as two of the masks do; and the intersections
    that 2.5 % of them fall below, and 2.5 % above.
    """
    cells = [
        (int(size), int(n_a), int(n_b))
        for counts, sizes in compared.counts
        for n_a, n_b, size in zip(counts[first], counts[second], sizes, strict=True)
    ]
    random = random_intersection(cells)
    observed = int(compared.intersection[first, second])
    low, high = random.quantiles(0.025, 0.975)
    return random.at_least(observed), random.at_most(observed), low, high


def _flat_strata(masks: Sequence[Mask], name: str) -> Int[np.ndarray, " weights"]:
    return common_strata(masks, (name,))[name].reshape(-1).numpy().astype(np.int64)


def _largest(mask: Mask, name: str, eligible: np.ndarray, n_kept: int, rng: np.random.Generator) -> np.ndarray:
    """The `n_kept` eligible kept weights with the largest logits; ties, and masks without logits, at random."""
    candidates = np.flatnonzero(mask.kept[name].cpu().reshape(-1).numpy() & eligible)
    chosen = np.zeros(len(eligible), dtype=bool)
    if len(candidates) > n_kept:
        candidates = rng.permutation(candidates)
        if mask.logits is not None:
            logits = mask.logits[name].reshape(-1).numpy()[candidates]
            candidates = candidates[np.argsort(-logits, kind="stable")]
    chosen[candidates[:n_kept]] = True
    return chosen
