"""A model is called on a batch as its user would, and is left as it was."""

from collections import namedtuple

import pytest
import torch
from torch import nn

from modscope.calling import (
    accepted,
    call,
    check_model,
    device_of,
    evaluation_mode,
    explained,
    moved,
    shapes,
    split_batch,
)
from modscope.errors import TaskError, WiringError


class _Two(nn.Module):
    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return first - second


class _Any(nn.Module):
    def forward(self, **batch: torch.Tensor) -> list[str]:
        return sorted(batch)


def test_inputs_are_one_argument_positions_or_keywords():
    one, two = torch.ones(2), 3 * torch.ones(2)
    assert torch.equal(call(nn.Identity(), one), one)
    assert torch.equal(call(_Two(), (two, one)), 2 * one)
    assert torch.equal(call(_Two(), {"second": two, "first": one}), -2 * one)


def test_other_inputs_are_refused():
    with pytest.raises(WiringError, match=r"a tensor, a tuple .* or a dict .*, got list"):
        call(nn.Identity(), [torch.ones(2)])


def test_a_batch_is_inputs_and_targets_or_a_dict():
    inputs, targets = torch.ones(2), torch.zeros(2)
    assert split_batch(_Two(), (inputs, targets)) == (inputs, targets)
    assert split_batch(_Two(), [[inputs, inputs], targets])[0] == (inputs, inputs)
    batch = {"first": inputs, "second": inputs, "label": targets}
    assert set(split_batch(_Two(), batch)[0]) == {"first", "second"}
    assert split_batch(_Two(), batch)[1] is batch
    for wrong in (inputs, (inputs,), (inputs, targets, targets), None):
        with pytest.raises(TaskError, match="a batch must be"):
            split_batch(_Two(), wrong)


def test_a_forward_with_free_keywords_gets_all_of_them():
    batch = {"first": torch.ones(1), "label": torch.ones(1)}
    assert set(accepted(_Any(), batch)) == {"first", "label"}
    assert set(accepted(_Two(), batch)) == {"first"}


def test_wrapped_models_are_unwrapped():
    model = nn.Linear(2, 2)
    assert check_model(nn.DataParallel(model)) is model
    assert check_model(torch.compile(model, backend="eager")) is model


def test_something_that_is_no_model_is_refused_with_a_hint_for_a_class():
    with pytest.raises(WiringError, match=r"must be a torch\.nn\.Module, got int$"):
        check_model(3)
    with pytest.raises(WiringError, match=r"got the class Linear - call the class first"):
        check_model(nn.Linear)


def test_tensors_are_moved_wherever_they_are_nested():
    pair = namedtuple("pair", "a b")(torch.ones(1), "text")
    value = {"x": [torch.ones(1), (torch.ones(1), 3)], "pair": pair}
    on_meta = moved(value, torch.device("meta"))
    assert on_meta["x"][0].is_meta
    assert on_meta["x"][1][0].is_meta
    assert on_meta["x"][1][1] == 3
    assert on_meta["pair"] is pair
    assert moved(value, None)["x"][0] is value["x"][0]


def test_the_device_is_that_of_parameters_or_else_of_buffers():
    with_buffer = nn.Identity()
    with_buffer.register_buffer("mean", torch.zeros(1, device="meta"))
    assert device_of(nn.Linear(1, 1)) == torch.device("cpu")
    assert device_of(with_buffer) == torch.device("meta")
    assert device_of(nn.Identity()) is None


def test_every_layer_has_its_own_mode_back_also_after_an_exception():
    model = nn.Sequential(nn.Dropout(), nn.Dropout())
    model[1].eval()
    with pytest.raises(RuntimeError, match="modes inside: False False False"):
        _fail_in_evaluation_mode(model)
    assert [layer.training for layer in model.modules()] == [True, True, False]


def _fail_in_evaluation_mode(model: nn.Module) -> None:
    with evaluation_mode(model):
        raise RuntimeError("modes inside: " + " ".join(str(layer.training) for layer in model.modules()))


def test_shapes_are_told_in_messages():
    batch = {"tokens": torch.zeros(2, 3, dtype=torch.long), "pair": (torch.zeros(4), None)}
    assert shapes(batch) == "{tokens: (2, 3) int64, pair: ((4,) float32, NoneType)}"
    error = explained(KeyError("x"), "reading the model", torch.zeros(2, 3), WiringError)
    assert isinstance(error, WiringError)
    assert str(error) == "reading the model failed on inputs (2, 3) float32: KeyError: 'x'"
