from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import families
from modscope.errors import MaskError
from modscope.masks.applied import applied
from modscope.masks.cut import masked_state_dict, smaller_state_dict, units_of_weights, weights_of_units
from modscope.masks.mask import Mask
from modscope.wiring.trace import read_wiring
from modscope.wiring.wiring import Wiring


def hidden_kept(wiring: Wiring, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    kept = np.ones(wiring.n_units, dtype=bool)
    for group in wiring.groups:
        if group.kind == "hidden":
            kept[group.unit_ids] = rng.random(group.size) < 0.6
    return kept


def test_the_masked_state_dict_makes_an_ordinary_network_of_the_masked_one() -> None:
    model, inputs = families.norm_mlp().eval(), families.VECTOR
    generator = torch.Generator().manual_seed(0)
    mask = Mask({"0.weight": torch.rand(9, 6, generator=generator) < 0.5})
    plain = families.norm_mlp().eval()
    plain.load_state_dict(masked_state_dict(model, mask))
    with applied(model, mask):
        assert torch.equal(plain(inputs), model(inputs))


@pytest.mark.parametrize("build", [families.mlp, families.lenet])
def test_a_network_without_units_computes_what_the_masked_network_does(build: object) -> None:
    torch.manual_seed(0)
    model: nn.Module = build().eval()  # type: ignore[operator]
    inputs = torch.randn(3, 1, 28, 28) if build is families.lenet else families.VECTOR
    wiring = read_wiring(model, inputs)
    kept = hidden_kept(wiring)
    state = smaller_state_dict(model, wiring, kept)
    assert sum(tensor.numel() for tensor in state.values()) < sum(p.numel() for p in model.parameters())
    small = copy.deepcopy(model)
    for name, module in small.named_modules():
        for kind in ("weight", "bias"):
            if f"{name}.{kind}" in state:
                setattr(module, kind, nn.Parameter(state[f"{name}.{kind}"]))
    with torch.no_grad(), applied(model, weights_of_units(model, wiring, kept)):
        assert torch.allclose(small(inputs), model(inputs), atol=1e-6)


def test_statistics_of_batch_norm_go_with_their_units() -> None:
    model = nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.ReLU(), nn.Linear(9, 4)).eval()
    wiring = read_wiring(model, families.VECTOR)
    kept = hidden_kept(wiring)
    state = smaller_state_dict(model, wiring, kept)
    n_kept = int(kept.sum()) - 6 - 4
    assert {len(state[f"1.{name}"]) for name in ("weight", "bias", "running_mean", "running_var")} == {n_kept}
    assert state["3.weight"].shape == (4, n_kept)


def test_units_become_weights_and_weights_the_same_units_again() -> None:
    model = families.mlp()
    wiring = read_wiring(model, families.VECTOR)
    kept = hidden_kept(wiring, seed=1)
    mask = weights_of_units(model, wiring, kept)
    assert np.array_equal(units_of_weights(mask, wiring), kept)
    assert not units_of_weights(~mask & mask, wiring).any()


def test_inputs_and_outputs_are_not_cut_out() -> None:
    model = families.mlp()
    wiring = read_wiring(model, families.VECTOR)
    with pytest.raises(MaskError, match="cannot be cut out; keep them all"):
        smaller_state_dict(model, wiring, np.zeros(wiring.n_units, dtype=bool))


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_unit_mask_of_another_network_is_refused() -> None:
    model = families.mlp()
    with pytest.raises(MaskError, match="one bool for each of the 26 units"):
        weights_of_units(model, read_wiring(model, families.VECTOR), np.ones(3, dtype=bool))
