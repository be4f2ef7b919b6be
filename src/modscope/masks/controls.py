"""Does a mask mean anything? What must hold before one believes it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from modscope.calling import check_model
from modscope.masks.applied import applied
from modscope.masks.learner import MaskLearner
from modscope.masks.mask import Mask
from modscope.masks.removal import accuracy_without
from modscope.randomness import Rng, generator, numbered, seed_of
from modscope.tasks.task import Task, evaluate

Learner = Callable[..., Mask]
BUILT = 0.8  # share of the mask's gain that a mask on random weights may reach


@dataclass(frozen=True)
class MaskControls:
    """The two controls that decide whether a mask found something, and what they came to."""

    task: str
    whole_accuracy: float
    mask_accuracy: float
    ablated_accuracy: float  # all weights but the mask's
    random_whole_accuracy: float  # the same architecture with shuffled weights
    random_mask_accuracy: float  # a mask of the same size, learned on that
    density: float
    random_density: float
    passes: bool
    reason: str  # why it fails

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values."""
        return asdict(self)


def mask_controls(
    model: nn.Module, mask: Mask, task: Task, *, learner: Learner | None = None, rng: Rng = 0
) -> MaskControls:
    """Whether a mask found what the network learned: it must do clearly worse on random weights, and be needed.

    On random weights a mask of the same density is learned; if that comes to within a fifth of what the mask reaches
    above a random network, masking builds the function instead of finding it. And without the mask's weights the
    network must lose more than half of its accuracy above that of the random network.

    Args:
        model: The trained network.
        mask: The mask of the task.
        task: The task.
        learner: Learns the mask on random weights; `MaskLearner()` if not given.
        rng: Shuffles the weights, and seeds the learner.

    Source: Zhou et al. 2019 (masks on random weights work); statistics of modscope, section 4.
    """
    model = check_model(model)
    seed = seed_of(rng)
    shuffled = with_random_weights(model, rng=numbered(seed, "random weights"))
    random_mask = (learner or MaskLearner())(shuffled, task, rng=seed)
    if random_mask.logits is not None and mask.n_kept:
        random_mask = random_mask.at_density(mask.density)
    with applied(model, mask):
        with_mask = evaluate(model, task).accuracy
    with applied(shuffled, random_mask):
        built = evaluate(shuffled, task).accuracy
    whole, nothing = evaluate(model, task).accuracy, evaluate(shuffled, task).accuracy
    ablated = float(accuracy_without(model, mask, [task])[0])
    reason = _failure(mask, whole=whole, nothing=nothing, with_mask=with_mask, ablated=ablated, built=built)
    return MaskControls(
        task.name,
        whole,
        with_mask,
        ablated,
        nothing,
        built,
        mask.density,
        random_mask.density,
        not reason,
        reason,
    )


def with_random_weights(model: nn.Module, *, rng: Rng) -> nn.Module:
    """A copy of the model with the entries of every matrix and kernel shuffled: same sizes, no meaning."""
    rng = generator(rng)
    shuffled = copy.deepcopy(check_model(model))
    with torch.no_grad():
        for parameter in shuffled.parameters():
            if parameter.ndim >= 2:
                order = torch.from_numpy(rng.permutation(parameter.numel())).to(parameter.device)
                parameter.copy_(parameter.reshape(-1)[order].view(parameter.shape))
    return shuffled


def _failure(mask: Mask, *, whole: float, nothing: float, with_mask: float, ablated: float, built: float) -> str:
    if mask.n_kept == 0:
        return "the mask is empty"
    if whole - nothing < 0.05:
        return f"the network does the task hardly better than one with random weights ({whole:.2f}, {nothing:.2f})"
    if built - nothing > BUILT * (with_mask - nothing):
        return f"a mask of this size reaches {built:.2f} on random weights too: it builds the function"
    if ablated - nothing > (whole - nothing) / 2:
        return f"without the mask's weights the network still reaches {ablated:.2f}: it does not need them"
    return ""
