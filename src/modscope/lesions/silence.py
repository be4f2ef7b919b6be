"""How does a model run with some of its units silenced?"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from modscope.calling import check_model
from modscope.errors import LesionError
from modscope.lesions.values import Fill, Replacement, Value, fill_for
from modscope.randomness import Rng
from modscope.wiring.forward.kernels import unfused
from modscope.wiring.forward.reads import ReadMode
from modscope.wiring.wiring import Wiring


@contextmanager
def silenced(
    model: nn.Module,
    wiring: Wiring,
    unit_ids: Iterable[int] | np.ndarray,
    *,
    value: Value = "zero",
    reference: Iterable[Any] | None = None,
    rng: Rng = 0,
) -> Iterator[nn.Module]:
    """The model, running without what some of its units say.

    A unit is replaced where it is *read*: at the input of every weight that multiplies it, after norms; an output unit
    in the model's output. So "zero" is the same as setting the readers' columns to zero. Inside, gradients are off.
    Afterwards the model is itself again, bit for bit, also after an exception. Lesions can be nested.

    Args:
        model: Any module; it is used in place, and is what `as` gives.
        wiring: What `read_wiring` gave for this model.
        unit_ids: Units to silence.
        value: What is read instead. "zero". "mean": the mean of what is read there, over the examples of `reference`
            and over all positions that share the weight. "resample": what another example has there; it is drawn from
            `reference` anew for every example and every call.
        reference: Batches, as in a Task: `(inputs, targets)` or dicts; bare tensors of inputs will do too.
        rng: Draws the other examples.

    Raises:
        LesionError: If there is no such unit, `reference` is missing, or a weight is used in a way unknown to us.
    """
    model = check_model(model)
    units = checked_units(wiring, unit_ids)
    fill = fill_for(model, wiring, units, value=value, reference=reference, rng=rng)
    mode = ReadMode(model, wiring, units, Replacement(fill, units, wiring.n_units), LesionError)
    with torch.no_grad(), unfused(model), _installed(model, mode, fill):
        yield model


def checked_units(wiring: Wiring, unit_ids: Iterable[int] | np.ndarray) -> np.ndarray:
    """The units, sorted, each once.

    Raises:
        LesionError: If one of them is no unit of the wiring.
    """
    units = np.unique(np.asarray(unit_ids if isinstance(unit_ids, np.ndarray) else list(unit_ids)))
    if units.size == 0:
        return np.zeros(0, dtype=np.int64)
    if units.dtype.kind not in "iu":
        raise LesionError(
            f"unit ids must be integers, got {units.dtype}; for a boolean array give np.flatnonzero(array)"
        )
    if units[0] < 0 or units[-1] >= wiring.n_units:
        wrong = units[(units < 0) | (units >= wiring.n_units)]
        raise LesionError(f"no unit {wrong[0]}: this wiring's units are 0 to {wiring.n_units - 1}")
    return units.astype(np.int64)


def run_silenced(
    mode: ReadMode,
    fill: Fill,
    forward: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    number: int = 0,
) -> Any:
    """The outputs of forward pass `number` under a lesion."""
    fill.prepare(forward, (*args, kwargs), number)
    mode.start()
    with mode:
        outputs = forward(*args, **kwargs)
    return mode.finish(outputs)


@contextmanager
def _installed(model: nn.Module, mode: ReadMode, fill: Fill) -> Iterator[None]:
    """`model.forward` runs under the lesion; what stood there before is put back."""
    original = model.forward
    before = model.__dict__.get("forward")  # the lesion around this one, if any
    numbers = itertools.count()

    @functools.wraps(original)
    def forward(*args: Any, **kwargs: Any) -> Any:
        return run_silenced(mode, fill, original, args, kwargs, next(numbers))

    model.__dict__["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del model.__dict__["forward"]
        else:
            model.__dict__["forward"] = before
