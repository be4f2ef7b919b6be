"""Which operations does a model run on an example? A flat list of them, from torch.export or from one recorded run."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

Operation: TypeAlias = torch._ops.OpOverload[..., Any]


@dataclass(frozen=True)
class Slot:
    """A tensor of the program: what is known of it before it is computed."""

    index: int
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class Step:
    """One operation; slots stand where tensors stood, in its arguments and in its result."""

    op: Operation
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    layer: str  # dotted name of the module that runs it


@dataclass(eq=False)
class Program:
    """The operations of one run, in order, and where its tensors come from."""

    inputs: list[tuple[Slot, str]] = field(default_factory=list)  # with the name of the argument
    parameters: list[tuple[Slot, str]] = field(default_factory=list)  # with the dotted name
    constants: list[tuple[Slot, Tensor]] = field(default_factory=list)  # buffers and literals
    steps: list[Step] = field(default_factory=list)
    outputs: list[Slot] = field(default_factory=list)

    def new_slot(self, tensor: Tensor) -> Slot:
        """A slot of the tensor's shape and type."""
        self._n_slots = getattr(self, "_n_slots", 0) + 1
        return Slot(self._n_slots, tuple(int(size) for size in tensor.shape), tensor.dtype)


def exported_program(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    """The program that torch.export finds; the model is run on shapes alone.

    Raises:
        Exception: Whatever torch.export raises on a model that it cannot follow.
    """
    exported = torch.export.export(model, args, kwargs, strict=False)
    return _Flattener(model, exported).program()


class _Flattener:
    """Turns an exported graph, with the graphs inside it (no_grad, autocast), into one list of steps."""

    def __init__(self, model: nn.Module, exported: ExportedProgram) -> None:
        self.model, self.exported, self.result = model, exported, Program()

    def program(self) -> Program:
        graph_module = self.exported.graph_module
        placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
        values = [
            self.source(spec, node)
            for spec, node in zip(self.exported.graph_signature.input_specs, placeholders, strict=True)
        ]
        outputs = self.run(graph_module, values)
        specs = self.exported.graph_signature.output_specs
        kept = [out for spec, out in zip(specs, outputs, strict=True) if spec.kind.name == "USER_OUTPUT"]
        self.result.outputs = [out for out in kept if isinstance(out, Slot)]
        return self.result

    def source(self, spec: Any, node: torch.fx.Node) -> Any:
        """The slot of one placeholder, filed by where its tensor comes from."""
        example = node.meta.get("val")
        if not isinstance(example, Tensor):
            return example
        slot = self.result.new_slot(example)
        if spec.kind is InputKind.PARAMETER:
            self.result.parameters.append((slot, spec.target))
        elif spec.kind is InputKind.USER_INPUT:
            self.result.inputs.append((slot, node.name))
        elif spec.kind is InputKind.BUFFER:
            self.result.constants.append((slot, self.model.get_buffer(spec.target)))
        else:
            self.result.constants.append((slot, self.exported.constants[spec.target]))
        return slot

    def run(self, graph_module: torch.fx.GraphModule, values: Sequence[Any], outer_layer: str = "") -> Sequence[Any]:
        """The outputs of a graph, after its steps are added to the program."""
        known: dict[torch.fx.Node, Any] = {}
        remaining = iter(values)
        for node in graph_module.graph.nodes:
            if node.op == "placeholder":
                known[node] = next(remaining)
            elif node.op == "get_attr":
                known[node] = self.attribute(graph_module, node)
            elif node.op == "output":
                return tuple(_looked_up(node.args[0], known))
            else:
                known[node] = self.step(node, known, outer_layer)
        raise AssertionError("an exported graph ends in an output node")

    def attribute(self, graph_module: torch.fx.GraphModule, node: torch.fx.Node) -> Any:
        value = operator.attrgetter(str(node.target))(graph_module)
        if not isinstance(value, Tensor):
            return value
        slot = self.result.new_slot(value)
        self.result.constants.append((slot, value))
        return slot

    def step(self, node: torch.fx.Node, known: dict[torch.fx.Node, Any], outer_layer: str) -> Any:
        args, kwargs = _looked_up(node.args, known), _looked_up(node.kwargs, known)
        layer = _layer_of(node) or outer_layer
        if node.target is operator.getitem:
            return args[0][args[1]]
        inner = next((i for i, arg in enumerate(args) if isinstance(arg, torch.fx.GraphModule)), None)
        if inner is not None:
            return self.run(args[inner], _operands(args[inner + 1 :]), layer)
        result = tree_map(
            lambda value: self.result.new_slot(value) if isinstance(value, Tensor) else value, _example(node)
        )
        if isinstance(node.target, torch._ops.OpOverload):
            self.result.steps.append(Step(node.target, args, kwargs, result, layer))
        return result


def _operands(args: Sequence[Any]) -> Sequence[Any]:
    """What the graph inside is called with: torch.cond gives (other branch, operands), wrappers one by one."""
    if args and isinstance(args[0], torch.fx.GraphModule):
        return list(args[1])
    return args


def _example(node: torch.fx.Node) -> Any:
    return node.meta.get("val")


def _looked_up(value: Any, known: dict[torch.fx.Node, Any]) -> Any:
    return torch.fx.node.map_aggregate(value, lambda leaf: known[leaf] if isinstance(leaf, torch.fx.Node) else leaf)


def _layer_of(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    return list(stack.values())[-1][0] if stack else ""


def recorded_program(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
    """The operations that one run of the model on these numbers takes."""
    recorder = _Recorder(model)
    with torch.no_grad(), recorder.layers(), recorder:
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
        super().__init__()  # type: ignore[no-untyped-call]
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
        results = func(*args, **kwargs)
        result = tree_map(lambda leaf: self.slot(leaf) if isinstance(leaf, Tensor) else leaf, results)
        if isinstance(func, torch._ops.OpOverload):
            self.result.steps.append(Step(func, slots[0], slots[1], result, self.running[-1]))
        return results
