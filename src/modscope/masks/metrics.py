"""How much do two masks have in common? The papers' raw numbers; `overlap` sets them against chance."""

from __future__ import annotations

from collections.abc import Sequence

from modscope.masks.mask import Mask, check_same_parameters


def iou(first: Mask, second: Mask) -> float:
    """Intersection over union, counted over all entries of all parameters; NaN if both are empty.

    Raises:
        MaskError: If the masks are of different parameters.
    """
    check_same_parameters(first, second)
    return _ratio((first & second).n_kept, (first | second).n_kept)


def io_min(first: Mask, second: Mask) -> float:
    """Intersection over the smaller mask: 1 if one is part of the other; NaN if one is empty.

    Raises:
        MaskError: If the masks are of different parameters.
    """
    check_same_parameters(first, second)
    return _ratio((first & second).n_kept, min(first.n_kept, second.n_kept))


def shared(mask: Mask, others: Sequence[Mask]) -> float:
    """Share of the mask that at least one of the others keeps too; NaN if the mask is empty."""
    union = others[0]
    for other in others[1:]:
        union = union | other
    return _ratio((mask & union).n_kept, mask.n_kept)


def remaining(control: Mask, mask: Mask) -> float:
    """Share of the control mask (learned on everything) that a task's mask keeps; NaN if the control is empty."""
    return _ratio((control & mask).n_kept, control.n_kept)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
