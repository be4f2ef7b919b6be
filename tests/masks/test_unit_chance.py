from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from modscope.errors import MaskError
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.overlap import overlap
from modscope.masks.unit_chance import residuals, unit_chances

SHAPES = {"0.weight": (24, 12), "2.weight": (6, 24)}


def of_random_units(rng: np.random.Generator) -> Mask:
    """A mask that keeps most weights of some units, and few of the others: in both matrices of the same units."""
    hidden = np.where(rng.random(24) < 0.4, 0.8, 0.05)
    kept = {"0.weight": rng.random((24, 12)) < hidden[:, None], "2.weight": rng.random((6, 24)) < hidden}
    return Mask({name: torch.from_numpy(tensor) for name, tensor in kept.items()})


def test_masks_of_independent_units_share_as_chance_by_units_says_and_not_as_chance_by_weights_does() -> None:
    rng = np.random.default_rng(0)
    rows = [
        overlap(MaskSet({"a": of_random_units(rng), "b": of_random_units(rng)}), rng=rng).pairs[0].total
        for _ in range(100)
    ]
    by_units = np.array([row.p_above_units for row in rows], dtype=float)
    assert stats.kstest(by_units, "uniform").pvalue > 1e-3
    assert (by_units <= 0.05).mean() < 0.12  # three standard deviations above the level
    assert np.mean([row.p_above <= 0.05 for row in rows]) > 0.15


def test_masks_of_the_same_units_share_more_than_chance_by_units() -> None:
    rng = np.random.default_rng(1)
    mask = of_random_units(rng)
    other = Mask({name: kept & (torch.rand(kept.shape) < 0.9) for name, kept in mask.kept.items()})
    total = overlap(MaskSet({"a": mask, "b": other})).pairs[0].total
    assert total.p_above_units == pytest.approx(0.01)
    assert total.p_below_units is not None
    assert total.p_below_units > 0.9


def test_residuals_are_zero_on_average_in_every_stratum_and_outside_them() -> None:
    rng = np.random.default_rng(2)
    strata, chosen = rng.integers(0, 4, 288), rng.random(288) < 0.3
    left = residuals(chosen, strata, SHAPES["0.weight"]).reshape(-1)
    assert (left[strata == 0] == 0).all()
    for stratum in (1, 2, 3):
        assert left[strata == stratum].sum() == pytest.approx(0, abs=1e-4)


def test_units_move_with_their_rows_and_their_columns() -> None:
    """One unit in use in both matrices: moving it in both at once gives 24 places, so 1 sample in 24 is the mask's."""
    one = {name: np.zeros((*shape, 1), np.float32) for name, shape in SHAPES.items()}
    one["0.weight"][3, :] = 1
    one["2.weight"][:, 3] = 1
    # every unit counts, a little
    noise = {name: np.full_like(tensor, 1e-9) for name, tensor in one.items()}
    mixed = {name: one[name] + noise[name] for name in one}
    found = unit_chances(mixed, mixed, n_samples=4000, rng=np.random.default_rng(3))["all"]
    assert found.p_above == pytest.approx(1 / 24, abs=0.012)


def test_no_samples_give_no_p_and_fewer_are_refused() -> None:
    rng = np.random.default_rng(4)
    masks = MaskSet({"a": of_random_units(rng), "b": of_random_units(rng)})
    assert overlap(masks, n_unit_samples=0).pairs[0].total.p_above_units is None
    with pytest.raises(MaskError, match="n_unit_samples"):
        overlap(masks, n_unit_samples=-1)
