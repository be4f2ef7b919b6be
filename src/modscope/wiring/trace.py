"""How is a model's wiring read? Its program is run once on ids in place of numbers."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map

from modscope.calling import Inputs, arguments, check_model, evaluation_mode, explained
from modscope.errors import WiringError
from modscope.wiring.assemble import assembled
from modscope.wiring.carry import Carry
from modscope.wiring.program import Program, Slot, Step, exported_program
from modscope.wiring.recording import recorded_program
from modscope.wiring.rules import keywords_for, rule_for
from modscope.wiring.rules.elementwise import elementwise
from modscope.wiring.values import Parameter, Value
from modscope.wiring.wiring import Wiring

ONE_RUN = "torch.export cannot follow the model (its control flow depends on numbers); this is the wiring of one run"
LARGEST_KNOWN = 2**20  # entries; larger constants are not computed


def read_wiring(model: nn.Module, example_inputs: Inputs) -> Wiring:
    """All units and connections of a model; the model itself is left as it was.

    Args:
        model: Any module; it may be compiled or wrapped for parallel training, in any precision, on any device,
            or on the meta device (then only shapes are used).
        example_inputs: One batch that the model accepts: a tensor, a tuple (positional) or a dict (keywords).
            Every entry of a float input, apart from the batch, is a unit; entries that are read alike are one.

    Raises:
        WiringError: If the model is not a module, is quantised, fails on the inputs, or returns no tensor.
    """
    model = check_model(model)
    _refuse_quantised(model)
    with untouched(model), evaluation_mode(model), _traceable(model), _quiet():
        program, warning = _program(model, example_inputs)
    if not program.outputs:
        raise WiringError("the model returns no tensor, so it has no output units; return a tensor, or a dict of them")
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    canonical = _canonical_names(model)
    owners: dict[str, list[str]] = {}
    for name, first in canonical.items():
        owners.setdefault(first, []).append(name.rpartition(".")[0])
    program.parameters = [(slot, canonical[name]) for slot, name in program.parameters]
    carry = Carry(parameters, owners, warnings=[warning] if warning else [])
    outputs = run_on_ids(program, carry)
    return assembled(carry, outputs, parameters)


def _canonical_names(model: nn.Module) -> dict[str, str]:
    """For every name of a parameter, the name that `named_parameters` gives it: tied weights have several."""
    first = {id(parameter): name for name, parameter in model.named_parameters()}
    return {name: first[id(parameter)] for name, parameter in model.named_parameters(remove_duplicate=False)}


def _program(model: nn.Module, inputs: Inputs) -> tuple[Program, str]:
    """The exported program, or, where the model's control flow depends on numbers, one recorded run and a warning."""
    if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves(inputs)) and not _is_meta(model):
        raise WiringError("the example inputs are on the meta device, the model is not; give inputs with numbers")
    args, kwargs = arguments(model, inputs)
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # where it fails, torch prints the whole graph there
            return exported_program(model, args, kwargs), ""
    except Exception as export_error:
        try:
            return recorded_program(model, args, kwargs), ONE_RUN
        except Exception as error:
            raise explained(error, "running the model", inputs, WiringError) from export_error


def _is_meta(model: nn.Module) -> bool:
    return any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))


# -- running -------------------------------------------------------------------------------------------------------


def run_on_ids(program: Program, carry: Carry) -> list[Value]:
    """The outputs of a program as values, after `carry` has seen all its steps."""
    run = _Run(carry)
    for slot, name in program.parameters:
        run.values[slot.index] = Value(slot.shape, parameter=Parameter(name, slot.shape))
    for slot, tensor in program.constants:
        is_known = not tensor.is_meta and tensor.numel() <= LARGEST_KNOWN
        run.values[slot.index] = Value(slot.shape, known=tensor.detach() if is_known else None)
    for slot, name in program.inputs:
        is_float = slot.dtype.is_floating_point or slot.dtype.is_complex
        ids = carry.new_inputs(name, slot.shape) if is_float else None
        run.values[slot.index] = Value(slot.shape, ids)
    for step in program.steps:
        run.step(step)
    return [run.values[slot.index] for slot in program.outputs]


class _Run:
    """The values of all slots so far; views are remembered, since writing into one changes what it is a view of."""

    def __init__(self, carry: Carry) -> None:
        self.carry = carry
        self.values: dict[int, Value] = {}
        self.views: dict[int, tuple[int, Callable[[Tensor], Tensor]]] = {}

    def step(self, step: Step) -> None:
        if not any(isinstance(leaf, Slot) for leaf in tree_leaves(step.result)):
            return  # a check of shapes or types
        args, kwargs = self.looked_up((step.args, step.kwargs))
        carry = self.carry
        carry.layer, carry.op_name, carry.result = step.layer, str(step.op), step.result
        given = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Value)]
        if all(value.ids is None and value.parameter is None for value in given):
            results = self.constant(step, args, kwargs, given)
        else:
            results = self.ruled(step, args, kwargs, given)
        self.file(step, results)

    def looked_up(self, tree: Any) -> Any:
        return tree_map(lambda leaf: self.values[leaf.index] if isinstance(leaf, Slot) else leaf, tree)

    def ruled(self, step: Step, args: Any, kwargs: Any, given: Sequence[Value]) -> Any:
        rule = rule_for(step.op)
        if rule is None and torch.Tag.pointwise in step.op.tags:
            rule = elementwise
        if rule is not None:
            return rule(self.carry, *args, **keywords_for(rule, kwargs))
        mixed = self.carry.mixed(given)
        if mixed is None:
            return tree_map(lambda slot: _same_weight(slot, given), step.result)
        self.carry.warn("has no rule; all units that go into it are taken as one unit")
        return tree_map(lambda slot: Value(slot.shape, mixed.expand(slot.shape)), step.result)

    def constant(self, step: Step, args: Any, kwargs: Any, given: Sequence[Value]) -> Any:
        """What no input can change: computed where it is small and all its numbers are known."""
        slots = [slot for slot in tree_leaves(step.result) if isinstance(slot, Slot)]
        is_small = all(np.prod(slot.shape, dtype=float) <= LARGEST_KNOWN for slot in slots)
        is_random = torch.Tag.nondeterministic_seeded in step.op.tags
        if not is_small or is_random or any(value.known is None for value in given):
            return tree_map(lambda slot: Value(slot.shape), step.result)
        numbers = tree_map(_known, (args, kwargs))
        on_cpu = {key: torch.device("cpu") if key == "device" else value for key, value in numbers[1].items()}
        with torch.no_grad():
            results = step.op(*numbers[0], **on_cpu)
        return tree_map(
            lambda result: Value(tuple(result.shape), known=result) if isinstance(result, Tensor) else result, results
        )

    def file(self, step: Step, results: Any) -> None:
        """Put results where later steps look for them."""
        slots, _ = tree_flatten(step.result)
        values, _ = tree_flatten(results)
        for slot, value in zip(slots, values, strict=False):
            if isinstance(slot, Slot):
                self.values[slot.index] = value
        name = step.op._schema.name
        written = step.args[0] if step.args else None
        if name.endswith("_") and isinstance(written, Slot) and values:
            self.overwrite(written.index, values[0])
        elif step.op.is_view and isinstance(written, Slot):
            self.remember_view(step, written, slots)

    def remember_view(self, step: Step, base: Slot, slots: Sequence[Any]) -> None:
        plain = tuple(arg for arg in step.args[1:])
        if any(isinstance(leaf, Slot) for leaf in tree_leaves((plain, step.kwargs))):
            return
        for i, slot in enumerate(slots):
            if isinstance(slot, Slot) and slot.index != base.index:

                def view(tensor: Tensor, i: int = i) -> Tensor:
                    seen = step.op(tensor, *plain, **step.kwargs)
                    return seen if isinstance(seen, Tensor) else seen[i]

                self.views[slot.index] = (base.index, view)

    def overwrite(self, index: int, value: Value) -> None:
        """Put a value in place of another, and into everything that it is a view of."""
        self.values[index] = replace(value, known=None)
        if index not in self.views or value.ids is None:
            return
        base_index, view = self.views[index]
        base = self.values[base_index]
        ids = torch.full(base.shape, -1) if base.ids is None else base.ids.clone(memory_format=torch.contiguous_format)
        view(ids).copy_(value.ids)
        self.overwrite(base_index, Value(base.shape, ids))


def _known(leaf: Any) -> Any:
    return leaf.known.clone() if isinstance(leaf, Value) and leaf.known is not None else leaf


def _same_weight(slot: Slot, given: Sequence[Value]) -> Value:
    """What an operation without a rule makes of weights alone: the weight of its result's shape, if there is one."""
    weights = [value.parameter for value in given if value.shape == slot.shape]
    return Value(slot.shape, parameter=next((weight for weight in weights if weight is not None), None))


# -- leaving the model as it was -----------------------------------------------------------------------------------


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Attributes, parameters, buffers (their numbers too) and random states are put back afterwards."""
    modules = list(model.modules())
    attributes = [dict(module.__dict__) for module in modules]
    # parameters, buffers, submodules, hooks, and whatever dicts the model keeps
    registers = [{k: dict(kept) for k, kept in module.__dict__.items() if isinstance(kept, dict)} for module in modules]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 - the user's global state
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        for module, before, registered in zip(modules, attributes, registers, strict=True):
            module.__dict__.clear()
            module.__dict__.update(before)
            for key, entries in registered.items():
                module.__dict__[key].clear()
                module.__dict__[key].update(entries)
        with torch.no_grad():
            for buffer, numbers in buffers:
                if not buffer.is_meta and not torch.equal(buffer, numbers):
                    buffer.copy_(numbers)


@contextmanager
def _traceable(model: nn.Module) -> Iterator[None]:
    """No key-value caches (they come back as outputs), and no fused encoder layers (they hide their weights)."""
    configs: dict[int, Any] = {id(found): found for m in model.modules() if (found := getattr(m, "config", None))}
    caching = [config for config in configs.values() if getattr(config, "use_cache", False) is True]
    fused = torch.backends.mha.get_fastpath_enabled()
    with contextlib.ExitStack() as stack:
        stack.callback(torch.backends.mha.set_fastpath_enabled, fused)
        torch.backends.mha.set_fastpath_enabled(False)
        for config in caching:
            stack.callback(setattr, config, "use_cache", True)
            config.use_cache = False
        yield


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing on the screen: torch.export warns of its own workings, and we say ourselves what could not be read."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _refuse_quantised(model: nn.Module) -> None:
    for name, module in model.named_modules():
        where = type(module).__module__
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        is_packed = any(part in where for part in (".quantized", "bitsandbytes", "torchao.quantization"))
        if is_packed or any(tensor.is_quantized for tensor in tensors):
            raise WiringError(
                f"layer '{name}' ({type(module).__name__}) is quantised: its weights are packed and cannot be read as "
                "a matrix; give the model as it was before it was quantised"
            )
