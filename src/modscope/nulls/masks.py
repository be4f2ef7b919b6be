"""What if a mask kept as many weights, but other ones?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from modscope.errors import StatisticsError
from modscope.nulls.registry import null_model
from modscope.nulls.subjects import SizedMask

N_SIZE_CLASSES = 10


@null_model("masks")
def random_masks(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps how many weights of each tensor a mask keeps; destroys which ones.

    Takes named boolean tensors, or a SizedMask (whose entries that are not eligible stay as they are).
    """
    if isinstance(subject, SizedMask):
        drawn = {name: _shuffled(mask, _strata(subject, name, 1), rng) for name, mask in subject.mask.items()}
        return replace(subject, mask=drawn)
    return {name: _shuffled(_boolean(name, mask), None, rng) for name, mask in _named(subject).items()}


@null_model("masks", takes=(SizedMask,))
def random_masks_of_equal_sizes(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps how many weights of each decile of |weight| a mask keeps, tensor by tensor; destroys which ones.

    Masks prefer large weights, so that two masks share more of them than random sets do, whatever they are for.
    """
    return replace(
        subject,
        mask={
            name: _shuffled(mask, _strata(subject, name, N_SIZE_CLASSES), rng) for name, mask in subject.mask.items()
        },
    )


def size_classes(weight: Tensor, is_eligible: Bool[Tensor, "..."], n_classes: int) -> Int[np.ndarray, " entries"]:
    """Which quantile of |weight| among the eligible entries each entry lies in; -1 for the others.

    Classes have equally many entries; entries of equal size are told apart by their position.
    """
    classes = np.full(weight.numel(), -1)
    places = np.flatnonzero(is_eligible.detach().cpu().numpy().reshape(-1))
    sizes = weight.detach().abs().float().cpu().numpy().reshape(-1)[places]
    order = np.argsort(sizes, kind="stable")
    classes[places[order]] = np.arange(len(places)) * n_classes // max(len(places), 1)
    return classes


def _strata(subject: SizedMask, name: str, n_classes: int) -> Int[np.ndarray, " entries"]:
    mask = subject.mask[name]
    is_eligible = subject.eligible.get(name, torch.ones_like(mask, dtype=torch.bool))
    return size_classes(subject.weights[name], is_eligible, n_classes)


def _shuffled(mask: Tensor, strata: Int[np.ndarray, " entries"] | None, rng: np.random.Generator) -> Tensor:
    """The mask with its entries permuted within each stratum; stratum -1 stays as it is."""
    values = mask.detach().cpu().numpy().reshape(-1)
    if strata is None:
        drawn = rng.permutation(values)
    else:
        drawn = values.copy()
        for stratum in range(int(strata.max(initial=-1)) + 1):
            places = np.flatnonzero(strata == stratum)
            drawn[places] = rng.permutation(values[places])
    return torch.from_numpy(drawn.reshape(mask.shape)).to(mask.device)


def _named(subject: Mapping[Any, Any]) -> Mapping[str, Tensor]:
    return subject


def _boolean(name: str, mask: Any) -> Tensor:
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise StatisticsError(f"mask '{name}' must be a boolean tensor (True = kept), got {kind}")
    return mask
