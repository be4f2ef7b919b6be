"""Which rule belongs to which operation?

A rule takes the carry and the operation's own arguments, with a `Value` wherever the operation takes a tensor, and
gives back a `Value` (or as many as the operation gives back). It names the keywords that matter to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeAlias, TypeVar

import torch

from modscope.wiring.program import Operation

Rule: TypeAlias = Callable[..., Any]
AnyRule = TypeVar("AnyRule", bound=Rule)
aten = torch.ops.aten
RULES: dict[object, Rule] = {}


def rule(*ops: Any) -> Callable[[AnyRule], AnyRule]:
    """Register a function as the rule of some operations.

    Args:
        ops: An operation (`torch.ops.aten.cat.default`), all overloads of a name (`torch.ops.aten.cat`), or the names
            of several aten operations in one string ("cat concat max.dim"); names that this torch lacks are skipped.
    """

    def register(function: AnyRule) -> AnyRule:
        for op in ops:
            RULES.update(dict.fromkeys(named(op) if isinstance(op, str) else [op], function))
        return function

    return register


def named(names: str) -> list[Any]:
    """The aten operations (all overloads, or one: "max.dim") with these names."""
    found = []
    for name in names.split():
        packet, _, overload = name.partition(".")
        op = getattr(aten, packet, None)
        found.append(getattr(op, overload, None) if overload else op)
    return [op for op in found if op is not None]


def rule_for(op: Operation) -> Rule | None:
    """The rule of an operation, of its name, or of its out-of-place twin (`relu` for `relu_`); None: it has none."""
    packet = op.overloadpacket
    name = packet.__name__
    twin = getattr(aten, name[:-1], None) if name.endswith("_") and not name.endswith("__") else None
    return next((RULES[key] for key in (op, packet, twin) if key in RULES), None)


def keywords_for(function: Rule, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Those keywords that a rule takes."""
    taken = _parameters(function)
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values()):
        return dict(kwargs)
    return {name: value for name, value in kwargs.items() if name in taken}


@cache
def _parameters(function: Rule) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters
