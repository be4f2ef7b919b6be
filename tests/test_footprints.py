"""A footprint counts the weights of a unit that a mask keeps, in the direction that the wiring says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from families import FAMILIES
from modscope.errors import MaskError
from modscope.footprints import IN, OUT, unit_weights
from modscope.wiring.trace import read_wiring
from modscope.wiring.wiring import Wiring


def slow_counts(wiring: Wiring, mask: dict[str, Tensor], unit: int, side: int) -> tuple[int, int, float]:
    """(weights, kept weights, sum of |weight|) of one unit, weight by weight."""
    n, kept, size = 0, 0, 0.0
    for connection in wiring.connections:
        if connection.parameter not in mask:
            continue
        ids = np.broadcast_to((connection.targets, connection.sources)[side], connection.weight.shape)
        for place in zip(*np.nonzero(ids == unit), strict=True):
            value = float(connection.weight[place])
            n += value != 0
            size += abs(value)
            kept += value != 0 and bool(mask[connection.parameter][place])
    return n, kept, size


@pytest.mark.parametrize("name", ["mlp", "lenet", "shufflenet", "head_weights", "gpt2", "stacked_bidirectional_lstm"])
def test_counts_are_those_of_the_definition(name: str) -> None:
    factory, inputs = FAMILIES[name]
    torch.manual_seed(0)
    model = factory().eval()
    wiring = read_wiring(model, inputs)
    weights = {c.parameter: c.weight for c in wiring.connections if c.kind == "weight"}
    with torch.no_grad():
        next(iter(weights.values())).flatten()[::3] = 0  # pruned weights count nowhere
    mask = {parameter: torch.rand(weight.shape) < 0.4 for parameter, weight in weights.items()}
    counts = unit_weights(wiring, {"task": [mask]})
    for unit in np.random.default_rng(0).choice(wiring.n_units, 8, replace=False):
        for side in (IN, OUT):
            n, kept, size = slow_counts(wiring, mask, unit, side)
            assert counts.n_weights[unit, side] == n
            assert counts.n_kept[0, unit, side] == kept
            assert counts.size[unit, side] == pytest.approx(size, rel=1e-5)
            assert counts.footprints[0, unit, side] == pytest.approx(kept / n if n else np.nan, nan_ok=True)


def test_seeds_of_a_task_are_averaged_and_weights_outside_all_masks_left_out() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    wiring = read_wiring(model, torch.zeros(1, 3))
    masks = {"a": [{"0.weight": torch.ones(4, 3, dtype=torch.bool)}, {"0.weight": torch.zeros(4, 3, dtype=torch.bool)}]}
    weights = unit_weights(wiring, masks)
    np.testing.assert_array_equal(weights.footprints[0, 3:7, IN], 0.5)
    assert np.isnan(weights.footprints[0, 7:, IN]).all()  # the second layer is in no mask


def test_masks_of_another_model_are_an_error() -> None:
    wiring = read_wiring(nn.Linear(3, 4), torch.zeros(1, 3))
    with pytest.raises(MaskError, match="covers none"):
        unit_weights(wiring, {"a": [{"other": torch.ones(4, 3, dtype=torch.bool)}]})
    with pytest.raises(MaskError, match=r"shape \(3, 4\)"):
        unit_weights(wiring, {"a": [{"weight": torch.ones(3, 4, dtype=torch.bool)}]})
