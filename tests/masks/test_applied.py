from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call

import families
from fingerprint import differences
from masks.untouched import state_of
from modscope.calling import arguments, call
from modscope.errors import MaskError
from modscope.masks.applied import applied
from modscope.masks.chunks import leaves
from modscope.masks.mask import Mask
from modscope.masks.parameters import chosen_parameters

# mixtral of this size has experts that torch's grouped product refuses, masked or not
SMALL = [name for name in families.FAMILIES if name != "mixtral"]


def some_mask(model: nn.Module, seed: int = 0, parameters: str = "weights") -> Mask:
    generator = torch.Generator().manual_seed(seed)
    chosen = chosen_parameters(model, parameters)
    return Mask({name: torch.rand(tensor.shape, generator=generator) < 0.7 for name, tensor in chosen.items()})


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", SMALL)
def test_a_masked_model_is_a_copy_with_edited_weights_bit_for_bit(name: str) -> None:
    factory, inputs = families.FAMILIES[name]
    torch.manual_seed(0)
    model = factory().eval()
    mask = some_mask(model)
    edited = copy.deepcopy(model)
    with torch.no_grad():
        for parameter_name, parameter in edited.named_parameters():
            if parameter_name in mask.names:
                parameter[~mask[parameter_name]] = 0
    before = state_of(model)
    with torch.no_grad():
        expected = leaves(call(edited, inputs))
        with applied(model, mask):
            found = leaves(call(model, inputs))
        masked = {key: value * mask[key] for key, value in model.named_parameters() if key in mask.names}
        positional, keywords = arguments(model, inputs)
        functional = leaves(functional_call(model, masked, positional, keywords))
    for one, two, three in zip(expected, found, functional, strict=True):
        if isinstance(one, torch.Tensor):
            assert torch.equal(one, two)
            # torch's transformer layers take a fast path with parameters only, which rounds differently
            assert torch.allclose(one.float(), three.float(), rtol=1e-4, atol=1e-5)
    assert differences(before, state_of(model)) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_the_model_is_itself_again_after_any_exception(error: type[BaseException]) -> None:
    model = families.mlp()
    before = state_of(model)
    with pytest.raises(error), applied(model, some_mask(model)):
        raise error
    assert differences(before, state_of(model)) == []


def test_a_tied_weight_is_masked_wherever_it_is_used() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inwards, self.outwards = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.outwards.weight = self.inwards.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.outwards(self.inwards(x))

    model = Tied()
    assert list(chosen_parameters(model, "weights")) == ["inwards.weight"]
    assert list(chosen_parameters(model, "outwards.*")) == ["inwards.weight"]
    with applied(model, Mask({"inwards.weight": torch.zeros(4, 4, dtype=torch.bool)})):
        assert model.outwards.weight.abs().sum() == 0
    nothing = torch.zeros(4, 4, dtype=torch.bool)
    clash = Mask({"inwards.weight": nothing, "outwards.weight": ~nothing})
    with pytest.raises(MaskError, match="one tied parameter"), applied(model, clash):
        pass


def test_a_removed_weight_is_zero_even_if_it_was_infinite() -> None:
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[torch.inf, 1.0]]))
    with applied(model, Mask({"weight": torch.tensor([[False, True]])})):
        assert model(torch.tensor([[3.0, 2.0]])).item() == 2


def test_a_mask_of_another_model_is_refused_and_the_model_stays_whole() -> None:
    model = families.mlp()
    before = state_of(model)
    square = torch.ones(2, 2, dtype=torch.bool)
    with pytest.raises(MaskError, match="has no parameter other"), applied(model, Mask({"other": square})):
        pass
    with (
        pytest.raises(MaskError, match=r"shape \(9, 6\) in the model and \(2, 2\)"),
        applied(model, Mask({"0.weight": square})),
    ):
        pass
    assert differences(before, state_of(model)) == []


def test_gradients_are_those_of_the_masked_model_also_after_the_end() -> None:
    model, inputs = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1)), torch.ones(2, 3)
    mask = Mask({"1.weight": torch.zeros(1, 3, dtype=torch.bool)})
    with applied(model, mask):
        inner = torch.autograd.grad(model(inputs).sum(), model[0].weight)[0]
        late = model(inputs).sum()
    assert inner.abs().sum() == 0
    late.backward()
    assert model[0].weight.grad is not None
    assert model[0].weight.grad.abs().sum() == 0
    assert model[1].weight.grad is None
