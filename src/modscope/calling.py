"""How is a model called on one batch, and left as it was?"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from modscope.errors import ModscopeError, TaskError, WiringError

Inputs: TypeAlias = Tensor | tuple[Any, ...] | Mapping[str, Any]  # one argument | positional | keywords


def check_model(model: object) -> nn.Module:
    """The module to work on: `model` itself, or what torch.compile, DataParallel or DDP have wrapped.

    Raises:
        WiringError: If `model` is not a `torch.nn.Module`.
    """
    if not isinstance(model, nn.Module):
        hint = " - call the class first" if isinstance(model, type) and issubclass(model, nn.Module) else ""
        raise WiringError(f"the model must be a torch.nn.Module, got {_described(model)}{hint}")
    while (wrapped := _wrapped(model)) is not None:
        model = wrapped
    return model


def _wrapped(model: nn.Module) -> nn.Module | None:
    is_parallel = isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel)
    inner = getattr(model, "module" if is_parallel else "_orig_mod", None)  # _orig_mod: torch.compile
    return inner if isinstance(inner, nn.Module) else None


def arguments(model: nn.Module, inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for `model`, moved to its device."""
    device = device_of(model)
    if isinstance(inputs, Mapping):
        return (), {name: moved(value, device) for name, value in inputs.items()}
    if isinstance(inputs, tuple):
        return tuple(moved(value, device) for value in inputs), {}
    if isinstance(inputs, Tensor):
        return (moved(inputs, device),), {}
    raise WiringError(
        f"inputs must be a tensor, a tuple (positional arguments) or a dict (keywords), got {_described(inputs)}"
    )


def call(model: nn.Module, inputs: Inputs) -> Any:
    """The model's outputs on one batch of inputs."""
    positional, keywords = arguments(model, inputs)
    return model(*positional, **keywords)


def split_batch(model: nn.Module, batch: Any) -> tuple[Inputs, Any]:
    """Inputs and targets of one batch: `(inputs, targets)`, or a dict with the keys that forward takes.

    For a dict the targets are the dict itself.

    Raises:
        TaskError: If the batch is neither.
    """
    if isinstance(batch, Mapping):
        return accepted(model, batch), batch
    if isinstance(batch, tuple | list) and len(batch) == 2:
        inputs = tuple(batch[0]) if isinstance(batch[0], list) else batch[0]
        return inputs, batch[1]
    raise TaskError(f"a batch must be (inputs, targets) or a dict, got {_described(batch)}")


def accepted(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a dict batch that the model's forward takes."""
    parameters = inspect.signature(model.forward).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return dict(batch)
    return {name: value for name, value in batch.items() if name in parameters}


def device_of(model: nn.Module) -> torch.device | None:
    """The device of the model's first parameter or buffer; None if it has neither."""
    tensor = next(itertools.chain(model.parameters(), model.buffers()), None)
    return None if tensor is None else tensor.device


def moved(value: Any, device: torch.device | None) -> Any:
    """`value` with every tensor in it on `device`."""
    if isinstance(value, Tensor):
        return value if device is None or value.device == device else value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        return {key: moved(entry, device) for key, entry in value.items()}
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(moved(entry, device) for entry in value)
    return value


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; every layer's own flag is put back afterwards, also after an exception."""
    with _own_flags_afterwards(model):
        model.eval()
        yield


@contextmanager
def training_mode(model: nn.Module) -> Iterator[None]:
    """The model in training mode; every layer's own flag is put back afterwards, also after an exception."""
    with _own_flags_afterwards(model):
        model.train()
        yield


def explained(error: Exception, doing: str, inputs: Inputs, kind: type[ModscopeError]) -> ModscopeError:
    """The error to raise when the user's model fails on a batch: what we did, on which shapes, and what it said."""
    return kind(f"{doing} failed on inputs {shapes(inputs)}: {type(error).__name__}: {error}")


def shapes(inputs: Any) -> str:
    """The shapes of a batch, for messages."""
    if isinstance(inputs, Tensor):
        return f"{tuple(inputs.shape)} {str(inputs.dtype).removeprefix('torch.')}"
    if isinstance(inputs, Mapping):
        return "{" + ", ".join(f"{key}: {shapes(value)}" for key, value in inputs.items()) + "}"
    if isinstance(inputs, tuple | list):
        return "(" + ", ".join(shapes(value) for value in inputs) + ")"
    return type(inputs).__name__


def _described(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


@contextmanager
def _own_flags_afterwards(model: nn.Module) -> Iterator[None]:
    flags = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
