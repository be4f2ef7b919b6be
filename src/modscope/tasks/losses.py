"""Which tasks need no labels? Those that ask a masked network to do what the whole one does."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from modscope.calling import Inputs, call, check_model, evaluation_mode, split_batch
from modscope.errors import TaskError
from modscope.tasks.task import Task


def match_outputs(
    model: nn.Module,
    train: Iterable[Any],
    test: Iterable[Any],
    *,
    name: str = "match outputs",
    distance: Literal["kl", "squared_error"] = "kl",
    outputs_of: Callable[[Any], Tensor] | None = None,
    batch_dim: int = 0,
) -> Task:
    """A task without labels: give the outputs that the whole network gives.

    The targets come from a copy of the model that is taken now, so masks, lesions and training do not change them.

    Args:
        model: The whole network.
        train: Batches that can be iterated again: inputs, `(inputs, anything)`, or dicts; labels are not used.
        test: The same, for evaluation.
        name: What the task is called.
        distance: "kl": Kullback-Leibler divergence from the whole network's softmax over the last axis, averaged over
            examples and positions; "squared_error": mean squared difference.
        outputs_of: The tensor to match in what the model returns; not needed for a tensor, or an output with `logits`.
        batch_dim: The axis of the inputs along which examples lie.

    Raises:
        TaskError: If `distance` is unknown, or data can be read only once.
    """
    if distance not in _DISTANCES:
        raise TaskError(f"distance must be one of {', '.join(_DISTANCES)}, got {distance!r}")
    whole = copy.deepcopy(check_model(model)).requires_grad_(False)
    matched = _logits if outputs_of is None else outputs_of
    loss = _DISTANCES[distance]
    return Task(
        name,
        _WithOutputs(whole, train, matched),
        _WithOutputs(whole, test, matched),
        loss=lambda outputs, targets: loss(matched(outputs), targets),
        correct=lambda outputs, targets: _agreement(matched(outputs), targets, batch_dim),
        function=name,
        batch_dim=batch_dim,
    )


@dataclass(frozen=True, eq=False)
class _WithOutputs:
    """Batches whose targets are the whole network's outputs."""

    whole: nn.Module
    batches: Iterable[Any]
    matched: Callable[[Any], Tensor]

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        for batch in self.batches:
            inputs = batch if isinstance(batch, Tensor) else split_batch(self.whole, batch)[0]
            with evaluation_mode(self.whole), torch.no_grad():
                targets = self.matched(call(self.whole, inputs))
            yield inputs, targets


def _kl(outputs: Tensor, targets: Tensor) -> Float[Tensor, ""]:
    of_whole = F.log_softmax(targets.float(), dim=-1)
    divergence = of_whole.exp() * (of_whole - F.log_softmax(outputs.float(), dim=-1))
    return divergence.sum(dim=-1).mean()


def _squared_error(outputs: Tensor, targets: Tensor) -> Float[Tensor, ""]:
    return (outputs.float() - targets.float()).square().mean()


_DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {"kl": _kl, "squared_error": _squared_error}


def _agreement(outputs: Tensor, targets: Tensor, batch_dim: int) -> Float[Tensor, " examples"]:
    """Per example, the share of positions where both have the same largest output."""
    same = (outputs.argmax(dim=-1) == targets.argmax(dim=-1)).float()
    axis = batch_dim if same.ndim > batch_dim else 0
    return same.movedim(axis, 0).reshape(same.shape[axis], -1).mean(dim=1)


def _logits(outputs: Any) -> Tensor:
    if isinstance(outputs, Tensor):
        return outputs
    logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    raise TaskError(
        f"the model returns {type(outputs).__name__}, which is no tensor and has no logits; say with outputs_of which "
        "tensor to match"
    )
