"""What do the control experiments of the masks' paper compare with: which task, which mask, which network?"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modscope.calling import check_model
from modscope.errors import MaskError
from modscope.masks.mask import Mask
from modscope.tasks.task import Task, as_tasks


def control_task(tasks: Sequence[Task], *, name: str = "all") -> Task:
    """One task that is all of them: their losses added, an example correct if all find it so. Its mask is the control.

    Tasks of one loss are parts of one data set (additions and multiplications, say): their batches take turns. Tasks
    of different losses are about different outputs for the same data: that of the first is used.
    """
    several = as_tasks(tasks)
    first = several[0]
    if all(task.loss is first.loss for task in several):
        return Task(
            name,
            _Interleaved([task.train for task in several]),
            _Interleaved([task.test for task in several]),
            loss=first.loss,
            correct=first.correct,
            batch_dim=first.batch_dim,
        )
    return Task(
        name,
        first.train,
        first.test,
        loss=lambda outputs, targets: torch.stack([task.loss(outputs, targets) for task in several]).sum(),
        correct=lambda outputs, targets: torch.stack([task.correct(outputs, targets).float() for task in several]).amin(
            dim=0
        ),
        batch_dim=first.batch_dim,
    )


def first_full_mask(mask: Mask, control: Mask, names: Sequence[str]) -> Mask:
    """The inverse of a mask, but with the control mask in the named parameters (input and output layers).

    Source: Csordás et al. 2021, the control "first full mask" of the inverse test.
    """
    inverse = ~mask
    unknown = [name for name in names if name not in inverse.names]
    if unknown:
        raise MaskError(f"the mask has no parameter {', '.join(unknown)}; it has {', '.join(inverse.names)}")
    return Mask({name: control[name] if name in names else kept for name, kept in inverse.kept.items()})


def copy_weights(model: nn.Module, *, inputs: tuple[str, slice, slice], outputs: tuple[str, slice, slice]) -> nn.Module:
    """A copy of the model in which one task's input columns and output rows are another's: it *can* share all else.

    Args:
        model: The network.
        inputs: Parameter name, columns to copy from, columns to copy to, of the first layer.
        outputs: Parameter name, rows to copy from, rows to copy to, of the last layer; its bias is copied too.

    Source: Csordás et al. 2021, the control "copy weights" of double addition.
    """
    copied = copy.deepcopy(check_model(model))
    parameters = dict(copied.named_parameters())
    with torch.no_grad():
        name, source, target = inputs
        parameters[name][:, target] = parameters[name][:, source].clone()
        name, source, target = outputs
        bias = name.removesuffix("weight") + "bias"
        for each in (name, bias) if bias in parameters else (name,):
            parameters[each][target] = parameters[each][source].clone()
    return copied


@dataclass(frozen=True, eq=False)
class _Interleaved:
    """Batches of several data sets, one from each in turn."""

    sources: Sequence[Any]

    def __iter__(self) -> Any:
        for batches in itertools.zip_longest(*self.sources):
            yield from (batch for batch in batches if batch is not None)
