"""How is a model run under other parameters? As it is, on the ways through it that are quickest.

Convolutions and pooling on a processor are quicker where channels lie next to each other in memory, and attention
without copies. Neither changes outputs by more than rounding, which is tried on the first batch. The parameters of the
model itself are never moved: those that stand in for them lie as they are read best.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from modscope.calling import Inputs, arguments, explained
from modscope.errors import ModscopeError, TaskError
from modscope.masks.attention import QuickAttention
from modscope.masks.chunks import leaves
from modscope.tasks.task import Task

_ROUNDING = 500  # units of rounding by which outputs may differ between two ways through a model
# A kernel that reads fewer channels at each place than a vector unit holds numbers gains nothing from having them
# together, and the first linear layer after it would put them apart again.
_FEWEST_CHANNELS = 16


@dataclass(frozen=True)
class Running:
    """A way through a model.

    Args:
        channels_last: Whether kernels of two-dimensional convolutions lie with their channels last.
        quick_attention: Whether `nn.MultiheadAttention` is computed without copies.
    """

    channels_last: bool = False
    quick_attention: bool = False

    def ordered(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters, each as it is read best: itself, or a copy that lies otherwise in memory."""
        if not self.channels_last:
            return dict(parameters)
        last = torch.channels_last
        return {name: one.contiguous(memory_format=last) if one.ndim == 4 else one for name, one in parameters.items()}

    def __call__(self, model: nn.Module, parameters: Mapping[str, Tensor], inputs: Inputs, task: Task) -> Any:
        """The model's outputs under these parameters.

        Raises:
            TaskError: If the model fails.
        """
        positional, keywords = arguments(model, inputs)
        try:
            with QuickAttention() if self.quick_attention else nullcontext():
                return functional_call(model, dict(parameters), positional, keywords)
        except ModscopeError:
            raise
        except Exception as error:
            doing = f"running the model under a mask on task '{task.name}'"
            raise explained(error, doing, inputs, TaskError) from error


def quickest(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Inputs, task: Task) -> Running:
    """The way through the model that is quickest among those that give the outputs and gradients of the usual one.

    Args:
        model: Any module.
        parameters: All its parameters, detached.
        inputs: A batch.
        task: Named in errors.
    """
    offered = {
        "channels_last": any(_gains_from_channels_last(tensor) for tensor in parameters.values()),
        "quick_attention": any(isinstance(module, nn.MultiheadAttention) for module in model.modules()),
    }
    ways = [Running(**{name: True}) for name, is_offered in offered.items() if is_offered]
    usual = _trial(Running(), model, parameters, inputs, task) if ways else None
    if usual is None:
        return Running()
    found = {way: _trial(way, model, parameters, inputs, task) for way in ways}
    same = [way for way, outputs in found.items() if outputs is not None and agree(usual, outputs)]
    return Running(any(way.channels_last for way in same), any(way.quick_attention for way in same))


def agree(first: Any, second: Any) -> bool:
    """Whether two outputs of a model are the same but for rounding."""
    pairs = zip(leaves(first), leaves(second), strict=True)
    return all(_close(one, other) for one, other in pairs if isinstance(one, Tensor))


def _close(first: Tensor, second: Tensor) -> bool:
    if first.shape != second.shape:
        return False
    if not first.is_floating_point() or not first.numel():
        return torch.equal(first, second)
    allowed = _ROUNDING * torch.finfo(first.dtype).eps * float(first.abs().max())
    return torch.allclose(first, second, rtol=0, atol=allowed, equal_nan=True)


def _gains_from_channels_last(tensor: Tensor) -> bool:
    is_quick = tensor.device.type == "cpu" and tensor.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    return is_quick and tensor.ndim == 4 and tensor.shape[1] >= _FEWEST_CHANNELS


def _trial(
    running: Running, model: nn.Module, parameters: Mapping[str, Tensor], inputs: Inputs, task: Task
) -> list[Tensor] | None:
    """What a model gives on one way, once its gradient has been taken; None if it does not go that way."""
    tracked = {name: one.detach().requires_grad_() for name, one in running.ordered(parameters).items()}
    try:
        outputs = [leaf for leaf in leaves(running(model, tracked, inputs, task)) if isinstance(leaf, Tensor)]
        with_gradient = [output.sum() for output in outputs if output.requires_grad]
        torch.autograd.backward(with_gradient)
    except (TaskError, RuntimeError):  # some models ask how their numbers lie in memory
        return None
    return [output.detach() for output in outputs]
