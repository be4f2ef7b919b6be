"""Which entries does a learned mask keep at another threshold, or at another size?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modscope.errors import MaskError


def kept_above(logits: Mapping[str, Tensor] | None, threshold: float) -> dict[str, Tensor]:
    """True where the logit is above the threshold.

    Raises:
        MaskError: If there are no logits.
    """
    return {name: tensor > threshold for name, tensor in _learned(logits).items()}


def kept_share(logits: Mapping[str, Tensor] | None, density: float) -> dict[str, Tensor]:
    """True for this share of all entries: those with the largest logits, ties to the first.

    Raises:
        MaskError: If there are no logits, or `density` is not in [0, 1].
    """
    if not 0 <= density <= 1:
        raise MaskError(f"a density lies in [0, 1], got {density}")
    learned = _learned(logits)
    flat = torch.cat([tensor.reshape(-1) for tensor in learned.values()])
    order = torch.argsort(flat, descending=True, stable=True)[: round(density * len(flat))]
    chosen = torch.zeros_like(flat, dtype=torch.bool).index_fill_(0, order, True)
    parts = torch.split(chosen, [tensor.numel() for tensor in learned.values()])
    return {name: part.view(tensor.shape) for (name, tensor), part in zip(learned.items(), parts, strict=True)}


def _learned(logits: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
    if logits is None:
        raise MaskError("only a learned mask has logits; masks made by hand or by & | ~ - have none")
    return logits
