"""How do ids travel through norms? Units stay what they are; the norm's own parameters belong to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modscope.wiring.carry import Carry
from modscope.wiring.parameters import scaled_or_shifted
from modscope.wiring.program import Slot
from modscope.wiring.rules.registry import rule
from modscope.wiring.values import Value


def affine(carry: Carry, value: Value, gain: Value | None, bias: Value | None, axis: int) -> Value:
    """Gain and bias, laid along the axes from `axis` on; both belong to the units there."""
    value = _applied(carry, value, gain, axis, is_scale=True)
    return _applied(carry, value, bias, axis, is_scale=False)


def _applied(carry: Carry, value: Value, parameter: Value | None, axis: int, *, is_scale: bool) -> Value:
    if parameter is None or parameter.parameter is None or value.ids is None:
        return value
    after = len(value.shape) - axis - len(parameter.shape)
    laid = parameter.moved(lambda tensor: tensor[(..., *[None] * after)].expand(value.shape))
    return scaled_or_shifted(carry, value, laid, is_scale=is_scale)


@rule("batch_norm instance_norm")
def batch_norm(
    carry: Carry, value: Value, gain: Value | None, bias: Value | None, _mean: Value | None, variance: Value | None,
    uses_batch: bool, _momentum: float, eps: float, *_: Any,
) -> Value:  # fmt: skip
    """Units stay; in evaluation each is multiplied by gain / sqrt(running variance + eps)."""
    if variance is not None and variance.known is not None and not uses_batch:
        factor = (variance.known.double() + eps).rsqrt()
        value = carry.scaled(value, factor.reshape([-1] + [1] * (len(value.shape) - 2)))
    return affine(carry, value, gain, bias, 1)


@rule("_native_batch_norm_legit_no_training")
def batch_norm_no_training(carry: Carry, value: Value, *args: Any) -> tuple[Value, ...]:
    """As batch_norm, in evaluation."""
    *parameters, momentum, eps = args
    return batch_norm(carry, value, *parameters, False, momentum, eps), Value((0,)), Value((0,))


@rule("native_batch_norm cudnn_batch_norm _native_batch_norm_legit.default")
def native_batch_norm(carry: Carry, value: Value, *args: Any) -> tuple[Value, ...]:
    """As batch_norm, and the statistics that it used."""
    return (batch_norm(carry, value, *args), *_others(carry))


@rule("layer_norm rms_norm")
def layer_norm(
    carry: Carry, value: Value, shape: Sequence[int], gain: Value | None = None, bias: Any = None, *_: Any
) -> Value:
    """Units stay; gain and bias belong to them."""
    own_bias = bias if isinstance(bias, Value) else None  # rms_norm has eps in its place
    return affine(carry, value, gain, own_bias, len(value.shape) - len(shape))


@rule("native_layer_norm _fused_rms_norm")
def native_layer_norm(carry: Carry, value: Value, *args: Any) -> tuple[Value, ...]:
    """As layer_norm, and the statistics that it used."""
    return (layer_norm(carry, value, *args), *_others(carry))


@rule("group_norm")
def group_norm(carry: Carry, value: Value, _groups: int, *args: Any) -> Value:
    """Units stay; gain and bias belong to them."""
    gain, bias, *_ = (*args, None, None)
    return affine(carry, value, gain, bias, 1)


@rule("native_group_norm")
def native_group_norm(carry: Carry, value: Value, gain: Value | None, bias: Value | None, *_: Any) -> tuple[Value, ...]:
    """As group_norm, and the statistics that it used."""
    return (affine(carry, value, gain, bias, 1), *_others(carry))


@rule("_weight_norm _weight_norm_interface")
def weight_norm(carry: Carry, direction: Value, *_: Any) -> Any:
    """A weight stored as direction and length: it is stored where its direction is."""
    return direction if isinstance(carry.result, Slot) else (direction, *_others(carry))


def _others(carry: Carry) -> list[Value]:
    """Statistics and the like, given back after the result itself: no units."""
    return [Value(slot.shape) for slot in carry.result[1:]]
