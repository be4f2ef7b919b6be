"""Which operations does a model run, when torch.export cannot follow it? Those of one run, written down."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from modscope.wiring.program import Operation, Program, Slot, Step

# Layers that a run takes apart into one operation for each time step; they are written down whole.
WHOLE = ("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")


def recorded_program(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    """The operations that one run of the model on these numbers takes."""
    recorder = _Recorder(model)
    with torch.no_grad(), recorder.layers(), recorder, _WholeLayers(recorder):
        for name, tensor in _named_tensors(model, args, kwargs):
            recorder.result.inputs.append((recorder.slot(tensor), name))
        outputs = model(*args, **kwargs)
    recorder.result.outputs = [recorder.slot(leaf) for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return recorder.result


def _named_tensors(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Every tensor among the arguments, with the name of its argument."""
    named = inspect.signature(model.forward).bind_partial(*args, **kwargs).arguments
    for name, value in named.items():
        tensors = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
        for i, tensor in enumerate(tensors):
            yield (name if len(tensors) == 1 else f"{name}_{i}"), tensor


class _Recorder(TorchDispatchMode):
    """Writes down every operation that reaches a tensor."""

    def __init__(self, model: nn.Module) -> None:
        TorchDispatchMode.__init__(self)
        self.result = Program()
        self.model = model
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.layer_of = {module: name for name, module in model.named_modules()}
        self.slots: dict[int, Slot] = {}
        self.alive: list[Tensor] = []  # an id() is only good while its tensor lives
        self.running: list[str] = [""]

    @contextmanager
    def layers(self) -> Iterator[None]:
        """Know which layer runs; through global hooks, so that the model gets none."""

        def enter(module: nn.Module, _args: Any) -> None:
            self.running.append(self.layer_of.get(module, self.running[-1]))

        def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
            self.running.pop()

        before = register_module_forward_pre_hook(enter)
        after = register_module_forward_hook(leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def slot(self, tensor: Tensor) -> Slot:
        """The slot of a tensor; one that no operation has made is a parameter or a constant."""
        if id(tensor) not in self.slots:
            self.slots[id(tensor)] = self.result.new_slot(tensor)
            self.alive.append(tensor)
        return self.slots[id(tensor)]

    def given(self, tensor: Tensor) -> Slot:
        is_new = id(tensor) not in self.slots
        slot = self.slot(tensor)
        if is_new and id(tensor) in self.names:
            self.result.parameters.append((slot, self.names[id(tensor)]))
        elif is_new:
            self.result.constants.append((slot, tensor.detach().clone()))
        return slot

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        slots = tree_map(lambda leaf: self.given(leaf) if isinstance(leaf, Tensor) else leaf, (args, kwargs))
        return self.written_down(func, slots, func(*args, **kwargs))

    def written_down(self, func: Any, slots: Any, results: Any) -> Any:
        """The results, after the step is added to the program."""
        result = tree_map(lambda leaf: self.slot(leaf) if isinstance(leaf, Tensor) else leaf, results)
        if isinstance(func, torch._ops.OpOverload):
            self.result.steps.append(Step(func, slots[0], slots[1], result, self.running[-1]))
        return results


class _WholeLayers(TorchFunctionMode):
    """Hands recurrent layers to the recorder as one operation each."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.names = {getattr(torch._VF, name): name for name in WHOLE}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in self.names:
            return func(*args, **(kwargs or {}))
        recorder = self.recorder
        slots = tree_map(lambda leaf: recorder.given(leaf) if isinstance(leaf, Tensor) else leaf, (args, kwargs or {}))
        with torch.utils._python_dispatch._disable_current_modes():
            results = func(*args, **(kwargs or {}))
        return recorder.written_down(_overload(self.names[func], args), slots, results)


def _overload(name: str, args: Any) -> Operation:
    """The operation of a recurrent layer: on one tensor, or on packed sequences (then sizes stand before the state)."""
    packet = getattr(torch.ops.aten, name)
    is_packed = not name.endswith("_cell") and not isinstance(args[3], bool)
    overloads = [overload for overload in packet.overloads() if (overload == "data") == is_packed]
    operation: Operation = getattr(packet, overloads[0])
    return operation
