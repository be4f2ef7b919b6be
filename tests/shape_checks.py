"""Which annotations does the test run check? Those of arrays: their dtype, their rank, and axes that must agree.

Everything else is mypy's business, and the doors' of public functions: a test that hands a string where a model is
wanted must meet modscope's own error, not the type checker's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, get_args

from beartype import beartype
from jaxtyping import AbstractArray


def arrays_only(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, checked by beartype where an annotation speaks of an array's shape."""
    annotations = {name: hint for name, hint in function.__annotations__.items() if speaks_of_an_array(hint)}
    if not annotations:
        return function
    function.__annotations__ = annotations
    function.__signature__ = _with_annotations(inspect.signature(function), annotations)  # type: ignore[attr-defined]
    return beartype(function)


def speaks_of_an_array(hint: Any) -> bool:
    """Is there a jaxtyping annotation anywhere in the hint?"""
    if inspect.isclass(hint) and issubclass(hint, AbstractArray):
        return True
    return any(speaks_of_an_array(inner) for inner in get_args(hint))


def _with_annotations(signature: inspect.Signature, annotations: dict[str, Any]) -> inspect.Signature:
    parameters = [
        parameter.replace(annotation=annotations.get(name, inspect.Parameter.empty))
        for name, parameter in signature.parameters.items()
    ]
    return inspect.Signature(parameters, return_annotation=annotations.get("return", inspect.Signature.empty))
