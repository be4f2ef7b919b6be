"""Which operations does a model run on an example? A flat list of them, from torch.export."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_map

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
