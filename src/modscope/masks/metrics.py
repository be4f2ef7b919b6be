"""How much do two masks have in common? The papers' raw numbers; `overlap` sets them against chance.

`mask_metrics` (modscope.masks.metric_table) gives all of them for a set of masks, per tensor, per layer and in all,
each beside random masks and two runs of one task.
"""

from __future__ import annotations

from collections.abc import Sequence

from modscope.errors import MaskError
from modscope.masks.fitting import check_same_parameters
from modscope.masks.mask import Mask


def iou(first: Mask, second: Mask) -> float:
    """Intersection over union, counted over all entries of all parameters; NaN if both are empty.

    Raises:
        MaskError: If the masks are of different parameters.
    """
    check_same_parameters(first.kept, second.kept)
    return _ratio((first & second).n_kept, (first | second).n_kept)


def io_min(first: Mask, second: Mask) -> float:
    """Intersection over the smaller mask: 1 if one is part of the other; NaN if one is empty.

    Raises:
        MaskError: If the masks are of different parameters.
    """
    check_same_parameters(first.kept, second.kept)
    return _ratio((first & second).n_kept, min(first.n_kept, second.n_kept))


def shared(mask: Mask, others: Sequence[Mask]) -> float:
    """Share of the mask that at least one of the others keeps too; NaN if the mask is empty.

    Raises:
        MaskError: If there are no others, or the masks are of different parameters.
    """
    if not others:
        raise MaskError("shared compares a mask with others; give at least one")
    return _ratio((mask & union(others)).n_kept, mask.n_kept)


def remaining(control: Mask, mask: Mask) -> float:
    """Share of the control mask (learned on everything) that a task's mask keeps; NaN if the control is empty.

    Raises:
        MaskError: If the masks are of different parameters.
    """
    return _ratio((control & mask).n_kept, control.n_kept)


def transfer_share(mask: Mask, earlier: Sequence[Mask]) -> float:
    """Share of a task's mask that the masks of earlier tasks have used already; 0 without any, NaN if it is empty.

    Raises:
        MaskError: If the masks are of different parameters.

    Source: Csordás et al. 2021, permuted MNIST.
    """
    if not earlier:
        return _ratio(0, mask.n_kept)
    return _ratio((mask & union(earlier)).n_kept, mask.n_kept)


def union(masks: Sequence[Mask]) -> Mask:
    """What at least one of several masks keeps.

    Raises:
        MaskError: If there are none, or they are of different parameters.
    """
    if not masks:
        raise MaskError("there is no union of no masks; give at least one")
    together = masks[0]
    for mask in masks[1:]:
        together = together | mask
    return together


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
