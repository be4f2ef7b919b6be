"""How do ids travel through recurrent layers? One unit per hidden dimension; its gates are weights of that unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modscope.wiring.carry import Carry
from modscope.wiring.parameters import read
from modscope.wiring.rules.registry import rule
from modscope.wiring.values import Value, spread


def _layer(
    carry: Carry, sources: Tensor, gains: Tensor, state: Tensor | None, weights: Sequence[Value]
) -> tuple[Tensor, Tensor]:
    """Units of one direction of one layer: what it hands on, and its cell."""
    from_input, from_state = weights[0].stored, weights[1].stored
    rest = [weight.parameter for weight in weights[2:]]
    n_state = weights[1].shape[1]  # what it hands on: hidden dimensions, or their projection
    matrices = [part for part, weight in zip(rest, weights[2:], strict=True) if part and len(weight.shape) == 2]
    projection = matrices[0] if matrices else None
    n_hidden = projection.stored_shape[1] if projection else n_state
    n_gates = weights[0].shape[0] // n_hidden
    hidden = carry.write(from_input, [n_hidden], carry.depth_after(sources))
    handed_on = hidden
    if projection is not None:
        handed_on = carry.write(projection, [n_state], carry.depth_after(hidden))
        carry.connect(projection, hidden[None], handed_on[:, None])
    if state is not None:
        met = state >= 0
        carry.unions.union(state[met].numpy(), handed_on[met].numpy())
    gates = hidden.repeat(n_gates)
    carry.connect(from_input, sources[None], gates[:, None], gains[None])
    carry.connect(from_state, handed_on[None], gates[:, None])
    for part, weight in zip(rest, weights[2:], strict=True):
        if part is not None and len(weight.shape) == 1:
            carry.attach(part, "bias", gates)
    return handed_on, hidden


def _stack(
    carry: Carry, value: Value, states: Sequence[Value], weights: Sequence[Value], n_layers: int, n_directions: int
) -> tuple[Value, list[Value]]:
    """All layers and directions: the output, and the last states (as many as were given first)."""
    axis = len(value.shape) - 1
    per_layer = len(weights) // (n_layers * n_directions)
    sources, gains = read(carry, value, [len(value.shape) - 1])
    last: list[list[Tensor]] = [[], []]
    for layer in range(n_layers):
        written = []
        for direction in range(n_directions):
            index = layer * n_directions + direction
            state = _state_ids(carry, states[0], index)
            own = weights[index * per_layer : (index + 1) * per_layer]
            handed_on, cell = _layer(carry, sources, gains, state, own)
            written.append(handed_on)
            last[0].append(handed_on)
            last[1].append(cell)
        sources = torch.cat(written)
        gains = torch.zeros_like(sources)
    shape = (*value.shape[:-1], len(sources))
    batch = states[0].shape[1:-1]
    finals = []
    for units in last[: len(states)]:
        table = torch.stack(units)
        finals.append(
            Value(
                (len(units), *batch, table.shape[1]),
                spread(table, [0, 1 + len(batch)], (len(units), *batch, table.shape[1])),
            )
        )
    return Value(shape, spread(sources, [axis], shape)), finals


def _state_ids(carry: Carry, state: Value, index: int) -> Tensor | None:
    if state.ids is None:
        return None
    of_layer = state.ids[index]
    return carry.along(of_layer, [of_layer.ndim - 1])


def _arranged(carry: Carry, value: Value, n_before: int, n_after: int) -> tuple[Value, Value]:
    """Sequences put in another order, along so many leading axes before and after; units lie along the other axes."""
    shape: tuple[int, ...] = carry.result[0].shape
    ids = read(carry, value, range(n_before, len(value.shape)))[0]
    arranged = Value(shape) if value.ids is None else Value(shape, spread(ids, range(n_after, len(shape)), shape))
    return arranged, Value(carry.result[1].shape)


@rule("lstm.input")
def lstm(
    carry: Carry, value: Value, states: Sequence[Value], weights: Sequence[Value], _has_biases: bool, n_layers: int,
    _dropout: float, _train: bool, bidirectional: bool, *_: Any,
) -> tuple[Value, ...]:  # fmt: skip
    """Four gates write each unit; the cell is part of it."""
    output, finals = _stack(carry, value, states, weights, n_layers, 1 + bidirectional)
    return (output, *finals)


@rule("gru.input rnn_tanh.input rnn_relu.input")
def recurrent(
    carry: Carry, value: Value, state: Value, weights: Sequence[Value], _has_biases: bool, n_layers: int,
    _dropout: float, _train: bool, bidirectional: bool, *_: Any,
) -> tuple[Value, Value]:  # fmt: skip
    """Three gates (GRU) or one write each unit."""
    output, finals = _stack(carry, value, [state], weights, n_layers, 1 + bidirectional)
    return output, finals[0]


@rule("lstm.data")
def packed_lstm(
    carry: Carry, value: Value, _sizes: Value, states: Sequence[Value], weights: Sequence[Value], _has_biases: bool,
    n_layers: int, _dropout: float, _train: bool, bidirectional: bool,
) -> tuple[Value, ...]:  # fmt: skip
    """As lstm, on sequences of several lengths."""
    output, finals = _stack(carry, value, states, weights, n_layers, 1 + bidirectional)
    return (output, *finals)


@rule("gru.data rnn_tanh.data rnn_relu.data")
def packed_recurrent(
    carry: Carry, value: Value, _sizes: Value, state: Value, weights: Sequence[Value], _has_biases: bool,
    n_layers: int, _dropout: float, _train: bool, bidirectional: bool,
) -> tuple[Value, Value]:  # fmt: skip
    """As recurrent, on sequences of several lengths."""
    output, finals = _stack(carry, value, [state], weights, n_layers, 1 + bidirectional)
    return output, finals[0]


@rule("_pack_padded_sequence")
def pack(carry: Carry, value: Value, *_: Any) -> tuple[Value, Value]:
    """Sequences of several lengths, one time step after the other."""
    return _arranged(carry, value, n_before=2, n_after=1)


@rule("_pad_packed_sequence")
def unpack(carry: Carry, value: Value, *_: Any) -> tuple[Value, Value]:
    """Packed sequences, each in its own row again."""
    return _arranged(carry, value, n_before=1, n_after=2)


@rule("lstm_cell")
def lstm_cell(carry: Carry, value: Value, states: Sequence[Value], *weights: Value) -> tuple[Value, Value]:
    """One step of one layer."""
    handed_on = _cell(carry, value, states[0], weights)
    return handed_on, handed_on


@rule("gru_cell rnn_tanh_cell rnn_relu_cell")
def cell(carry: Carry, value: Value, state: Value, *weights: Value) -> Value:
    """One step of one layer."""
    return _cell(carry, value, state, weights)


def _cell(carry: Carry, value: Value, state: Value, weights: Sequence[Value]) -> Value:
    sources, gains = read(carry, value, [len(value.shape) - 1])
    given = None if state.ids is None else carry.along(state.ids, [state.ids.ndim - 1])
    handed_on, _ = _layer(carry, sources, gains, given, [weight for weight in weights if weight is not None])
    return Value(tuple(state.shape), spread(handed_on, [len(state.shape) - 1], state.shape))
