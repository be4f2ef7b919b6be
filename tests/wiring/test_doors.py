"""What a caller can get wrong, what may be wrapped around a model, and that the model is left as it was."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from families import FAMILIES, gpt2
from modscope.errors import WiringError
from modscope.wiring.trace import read_wiring, untouched

X = torch.linspace(-1, 1, 12).reshape(2, 6)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(), nn.Linear(5, 2))


class Forward(nn.Module):
    """A model whose forward is the function that it is given."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(6, 5), function
        self.register_buffer("count", torch.zeros(3))

    def forward(self, x: Tensor) -> object:
        return self.function(self, x)


def test_something_else_than_a_module_is_refused() -> None:
    with pytest.raises(WiringError, match="the model must be a"):
        read_wiring(lambda x: x, X)


def test_inputs_of_a_wrong_shape_are_named() -> None:
    with pytest.raises(WiringError, match=r"failed on inputs \(2, 7\) float32"):
        read_wiring(small(), torch.zeros(2, 7))


def test_inputs_of_a_wrong_kind_are_refused() -> None:
    with pytest.raises(WiringError, match="must be a tensor, a tuple"):
        read_wiring(small(), [X])


def test_inputs_on_another_device_are_moved_to_the_model() -> None:
    with torch.device("meta"):
        model = small()
    assert read_wiring(model, X).n_units == read_wiring(small(), X).n_units


def test_inputs_without_numbers_are_refused_by_a_model_that_has_them() -> None:
    with pytest.raises(WiringError, match="meta"):
        read_wiring(small(), X.to("meta"))


@pytest.mark.parametrize("result", [None, 3, {"loss": "none"}], ids=["none", "int", "dict"])
def test_a_model_that_returns_no_tensor_is_refused(result: object) -> None:
    with pytest.raises(WiringError, match="returns no tensor"):
        read_wiring(Forward(lambda model, x: result), X)


@pytest.mark.filterwarnings("ignore")  # torch's own quantised layers are deprecated
def test_quantised_layers_are_refused_by_name() -> None:
    model = nn.Sequential(nn.Linear(6, 5), torch.ao.nn.quantized.dynamic.Linear(5, 2))
    with pytest.raises(WiringError, match=r"layer '1' .* is quantised"):
        read_wiring(model, X)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.parametrize("width", [0, 1])
def test_layers_of_size_zero_and_one_are_read(width: int) -> None:
    model = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 2))
    assert read_wiring(model, X).n_units == 6 + width + 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_read(dtype: torch.dtype) -> None:
    wiring = read_wiring(small().to(dtype), X.to(dtype))
    assert wiring.n_units == 13
    assert wiring.connections[0].weight.dtype == dtype


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # raised inside torch.compile
def test_a_compiled_model_is_read_as_the_model_inside() -> None:
    assert read_wiring(torch.compile(small()), X).connections[0].parameter == "0.weight"


def test_a_parallel_model_is_read_as_the_model_inside() -> None:
    assert read_wiring(nn.DataParallel(small()), X).connections[0].parameter == "0.weight"


def test_an_operation_without_a_rule_makes_one_unit_and_one_warning() -> None:
    model = Forward(lambda model, x: torch.linalg.inv(model.linear(x).reshape(2, 5)[:, :4].reshape(2, 2, 2)))
    wiring = read_wiring(model, X)
    assert [warning for warning in wiring.warnings if "linalg_inv" in warning] == list(wiring.warnings)
    assert wiring.n_units == 6 + 1 + 1  # the fifth output is read by nothing


def test_the_layer_of_an_operation_without_a_rule_is_named() -> None:
    inner = Forward(lambda model, x: torch.fft.fft(model.linear(x)).real)
    wiring = read_wiring(nn.Sequential(nn.Identity(), inner), X)
    assert "aten.fft_fft.default" in wiring.warnings[0]
    assert "at layer '1'" in wiring.warnings[0]


# -- untouched -----------------------------------------------------------------------------------------------------


def snapshot(model: nn.Module) -> dict[str, object]:
    numbers = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = {name: (module.training, dict(module._forward_hooks)) for name, module in model.named_modules()}
    attributes = {name: sorted(module.__dict__) for name, module in model.named_modules()}
    identities = [id(tensor) for tensor in (*model.parameters(), *model.buffers())]
    gradients = [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    return {"numbers": numbers, "rest": (flags, attributes, identities, gradients)}


def assert_untouched(model: nn.Module, before: dict[str, object]) -> None:
    after = snapshot(model)
    assert after["rest"] == before["rest"]
    for name, tensor in before["numbers"].items():  # type: ignore[attr-defined]
        assert torch.equal(after["numbers"][name], tensor)  # type: ignore[index]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_left_as_it_was(name: str) -> None:
    factory, inputs = FAMILIES[name]
    model = factory().train()
    model.eval() if len(name) % 2 else next(model.children()).eval()  # some layers in training, some not
    before, state = snapshot(model), torch.get_rng_state()
    read_wiring(model, inputs)
    assert_untouched(model, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_all_random_states_are_put_back() -> None:
    def drawn() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002

    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    expected = drawn()
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.set_rng_state(states[2])
    with untouched(nn.Identity()):
        drawn()
    assert drawn() == expected


def test_a_model_that_keeps_things_is_left_as_it_was() -> None:
    def forward(model: nn.Module, x: Tensor) -> Tensor:
        model.count += 1
        model.seen = x
        model.register_buffer("new", torch.ones(2))
        model.linear.register_forward_hook(lambda *_: None)
        return model.linear(x) * torch.rand(5) if x.sum() < 9 else x

    model = Forward(forward)
    before, state = snapshot(model), torch.get_rng_state()
    assert read_wiring(model, X).n_units == 11
    assert_untouched(model, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_fails_is_left_as_it_was() -> None:
    def forward(model: nn.Module, x: Tensor) -> Tensor:
        model.count += 1
        model.linear.training = True
        raise RuntimeError("out of luck")

    model = Forward(forward).eval()
    before = snapshot(model)
    with pytest.raises(WiringError, match="out of luck"):
        read_wiring(model, X)
    assert_untouched(model, before)


def test_a_cache_of_keys_and_values_is_off_only_while_reading() -> None:
    model = gpt2()
    config = copy.deepcopy(model.config.to_dict())
    wiring = read_wiring(model, {"input_ids": torch.arange(5)[None]})
    assert model.config.to_dict() == config
    assert [group.name for group in wiring.groups if group.kind == "output"] == ["lm_head"]
