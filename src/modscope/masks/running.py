"""How is a model run under other parameters? As it is, on the ways through it that are quickest.

Convolutions and pooling on a processor are quicker where channels lie next to each other in memory, and attention
without copies. Neither changes outputs by more than rounding, which is tried on the first batch. The parameters of the
model itself are never moved: those that stand in for them lie as they are read best.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

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
        model: Any module.
        channels_last: Whether kernels of two-dimensional convolutions lie with their channels last.
        quick_attention: Whether `nn.MultiheadAttention` is computed without copies.
    """

    model: nn.Module
    channels_last: bool = False
    quick_attention: bool = False

    def ordered(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters, each as it is read best: itself, or a copy that lies otherwise in memory."""
        if not self.channels_last:
            return dict(parameters)
        last = torch.channels_last
        return {name: one.contiguous(memory_format=last) if one.ndim == 4 else one for name, one in parameters.items()}

    def __call__(self, parameters: Mapping[str, Tensor], inputs: Inputs, task: Task) -> Any:
        """The model's outputs under these parameters, which are all that it has.

        Raises:
            TaskError: If the model fails.
        """
        positional, keywords = arguments(self.model, inputs)
        try:
            with self.under(parameters), QuickAttention() if self.quick_attention else nullcontext():
                return self.model(*positional, **keywords)
        except ModscopeError:
            raise
        except Exception as error:
            doing = f"running the model under a mask on task '{task.name}'"
            raise explained(error, doing, inputs, TaskError) from error

    @contextmanager
    def under(self, parameters: Mapping[str, Tensor]) -> Iterator[None]:
        """The model reads these tensors as its parameters; its own are back afterwards.

        As `torch.func.functional_call` does, which looks for names and ties again in every call.
        """
        own = [layer[key] for layer, key, _ in self._places]
        try:
            for layer, key, name in self._places:
                layer[key] = parameters[name]
            yield
        finally:
            for (layer, key, _), parameter in zip(self._places, own, strict=True):
                layer[key] = parameter

    @cached_property
    def _places(self) -> list[tuple[dict[str, Any], str, str]]:
        """Where layers look for parameters: their dictionary, the key in it, and the parameter's (first) name."""
        name_of = {id(parameter): name for name, parameter in self.model.named_parameters()}
        layers = [module._parameters for module in self.model.modules()]
        return [(own, key, name_of[id(one)]) for own in layers for key, one in own.items() if one is not None]


def quickest(model: nn.Module, parameters: Mapping[str, Tensor], inputs: Inputs, task: Task) -> Running:
    """The way through the model that is quickest among those that give the outputs of the usual one.

    Args:
        model: Any module.
        parameters: All its parameters, detached.
        inputs: A batch.
        task: Named in errors.
    """
    ways = []
    if any(_gains_from_channels_last(tensor) for tensor in parameters.values()):
        ways.append(Running(model, channels_last=True))
    if any(isinstance(module, nn.MultiheadAttention) for module in model.modules()):
        ways.append(Running(model, quick_attention=True))
    usual = _trial(Running(model), parameters, inputs, task) if ways else None
    if usual is None:
        return Running(model)
    found = [(way, _trial(way, parameters, inputs, task)) for way in ways]
    same = [way for way, outputs in found if outputs is not None and agree(usual, outputs)]
    return Running(model, any(way.channels_last for way in same), any(way.quick_attention for way in same))


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


def _trial(running: Running, parameters: Mapping[str, Tensor], inputs: Inputs, task: Task) -> list[Tensor] | None:
    """What a model gives on one way, once its gradient has been taken; None if it does not go that way."""
    tracked = {name: one.detach().requires_grad_() for name, one in running.ordered(parameters).items()}
    try:
        outputs = [leaf for leaf in leaves(running(tracked, inputs, task)) if isinstance(leaf, Tensor)]
        with_gradient = [output.sum() for output in outputs if output.requires_grad]
        torch.autograd.backward(with_gradient)
    except (TaskError, RuntimeError):  # some models ask how their numbers lie in memory
        return None
    return [output.detach() for output in outputs]
