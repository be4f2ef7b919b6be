"""Is a model, and the process around it, as it was before?

before = fingerprint(model)
...
assert differences(before, fingerprint(model)) == []
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def fingerprint(model: nn.Module) -> dict[str, Any]:
    """Everything about a model and the process that using it must leave alone, by name."""
    return fingerprint_of_model(model) | surroundings()


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What changed, one line for each entry; empty if nothing did."""
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    return [f"{name}: {before.get(name, 'absent')} -> {after.get(name, 'absent')}" for name in sorted(changed)]


def fingerprint_of_model(model: nn.Module) -> dict[str, Any]:
    """Names, bytes, storage, flags and gradients of all tensors; identity, mode, hooks and attributes of all layers."""
    found: dict[str, Any] = {}
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    found["order of tensors"] = tuple(name for name, _ in tensors)
    for name, tensor in tensors:
        found[f"tensor {name}"] = _of_tensor(tensor)
        found[f"gradient of {name}"] = None if tensor.grad is None else (id(tensor.grad), _bytes(tensor.grad))
    for name, layer in model.named_modules(remove_duplicate=False):
        found[f"layer {name}"] = (id(layer), type(layer), layer.training)
        found[f"attributes of {name}"] = tuple(sorted(vars(layer)))
        found[f"class of {name}"] = tuple(sorted(vars(type(layer))))
        found[f"hooks of {name}"] = tuple(
            (hooks, tuple((key, id(hook)) for key, hook in getattr(layer, hooks, {}).items())) for hooks in HOOKS
        )
    return found


def surroundings() -> dict[str, Any]:
    """Random states, torch's switches, warnings, logging, environment, signals and open files of this process."""
    return {
        "torch random state": _bytes(torch.get_rng_state()),
        "numpy random state": hashlib.sha256(repr(np.random.get_state()).encode()).hexdigest(),  # noqa: NPY002
        "python random state": hash(random.getstate()),
        "accelerator random states": tuple(map(_bytes, torch.cuda.get_rng_state_all()))
        if torch.cuda.is_available()
        else (),
        "gradients on": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_enabled("cuda")),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(), torch.get_deterministic_debug_mode()),
        "threads": torch.get_num_threads(),
        "backends": (
            torch.backends.mkldnn.enabled,
            torch.backends.cudnn.enabled,
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.get_float32_matmul_precision(),
        ),
        "warning filters": tuple(map(repr, warnings.filters)),
        "logging": (logging.root.level, tuple(map(id, logging.root.handlers))),
        "plot settings": _plot_settings(),
        "working folder": os.getcwd(),
        "environment": tuple(sorted(os.environ.items())),
        "signal handlers": tuple(repr(signal.getsignal(number)) for number in sorted(signal.valid_signals())),
        "open files": _open_files(),
    }


def _of_tensor(tensor: Tensor) -> tuple[Any, ...]:
    layout = (tensor.dtype, tuple(tensor.shape), tensor.stride(), str(tensor.device), tensor.requires_grad)
    return (id(tensor), *layout, tensor.data_ptr(), tensor._version, _bytes(tensor))


def _bytes(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().tobytes()).hexdigest()


def _plot_settings() -> str | None:
    pyplot_settings = getattr(sys.modules.get("matplotlib"), "rcParams", None)
    return None if pyplot_settings is None else repr(sorted(map(str, pyplot_settings.items())))


def _open_files() -> tuple[str, ...]:
    """What this process's file descriptors point at, where the system can tell."""
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        return ()
    links = (os.path.realpath(entry) for entry in folder.iterdir() if entry.exists())
    return tuple(sorted(link for link in links if not link.startswith("/proc/")))
