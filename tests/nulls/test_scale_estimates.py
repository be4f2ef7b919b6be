"""Do estimated scales solve the equations that they are named after?"""

from __future__ import annotations

import numpy as np
import pytest

from modscope.nulls.layer_sums import products, sums
from modscope.nulls.layers import Layer
from modscope.nulls.residual_shape import ResidualShape
from modscope.nulls.scale_estimates import least_squares_log_scales, mean_scales, most_likely_log_scales

SHAPE = ResidualShape(left=1.0, right=3.0, bend=1.5, centre=0.2)


def layer_with(density: float, *, seed: int = 0) -> Layer:
    """9 x 7 weights; at a density below 1 row 3 and column 5 have none."""
    rng = np.random.default_rng(seed)
    sizes = rng.lognormal(size=(9, 7)) * np.outer(rng.lognormal(size=9), rng.lognormal(size=7))
    if density < 1:
        sizes[rng.random(sizes.shape) > density] = 0
        sizes[3], sizes[:, 5] = 0, 0
    flat = sizes.reshape(-1)
    positions = None if density == 1 else np.flatnonzero(flat)
    return Layer("layer", (9, 7), 63, flat if positions is None else flat[positions], positions)


def by_units(layer: Layer, values: np.ndarray) -> np.ndarray:
    """Sums over the entries of each row, then of each column, one by one."""
    rows = [values[layer.rows == row].sum() for row in range(9)]
    return np.array(rows + [values[layer.columns == column].sum() for column in range(7)])


@pytest.mark.parametrize("density", [1.0, 0.6])
def test_least_squares_agree_with_the_solution_of_the_whole_system(density: float) -> None:
    layer = layer_with(density)
    logs = np.log(layer.sizes)
    design = np.zeros((layer.n_entries, 16))
    design[np.arange(layer.n_entries), layer.rows] = 1
    design[np.arange(layer.n_entries), 9 + layer.columns] = 1
    fitted = design @ np.linalg.lstsq(design, logs, rcond=None)[0]
    np.testing.assert_allclose(sums(layer, least_squares_log_scales(layer, logs)), fitted, atol=5e-3)


@pytest.mark.parametrize("density", [1.0, 0.6])
def test_most_likely_scales_leave_scores_that_add_up_to_zero_for_every_unit(density: float) -> None:
    layer = layer_with(density)
    logs = np.log(layer.sizes)
    start = (np.zeros(9), np.zeros(7))
    residuals = logs - sums(layer, most_likely_log_scales(layer, logs, start, SHAPE))
    np.testing.assert_allclose(by_units(layer, SHAPE.score(residuals)), 0, atol=0.02)
    assert np.abs(by_units(layer, SHAPE.score(logs))).max() > 1  # so the start was no solution


def test_most_likely_scales_are_a_maximum_of_the_likelihood() -> None:
    layer = layer_with(0.6)
    logs = np.log(layer.sizes)
    a, b = most_likely_log_scales(layer, logs, least_squares_log_scales(layer, logs), SHAPE)

    def log_likelihood(a: np.ndarray, b: np.ndarray) -> float:
        u = logs - sums(layer, (a, b)) - SHAPE.centre
        fall = (SHAPE.left + SHAPE.right) / SHAPE.bend
        return float((SHAPE.left * u - fall * np.log1p(np.exp(SHAPE.bend * u))).sum())

    rng = np.random.default_rng(1)
    best = log_likelihood(a, b)
    moved = [log_likelihood(a + 0.1 * rng.normal(size=9), b + 0.1 * rng.normal(size=7)) for _ in range(50)]
    assert max(moved) < best


@pytest.mark.parametrize("density", [1.0, 0.6])
def test_weights_over_their_mean_scales_have_mean_one_in_every_row_and_column(density: float) -> None:
    layer = layer_with(density)
    scales = mean_scales(layer)
    counts = by_units(layer, np.ones(layer.n_entries))
    means = by_units(layer, layer.sizes / products(layer, scales)) / np.maximum(counts, 1)
    np.testing.assert_allclose(means[counts > 0], 1, rtol=1e-3)
    if density < 1:  # an empty unit's scale is 1, but for the level that both sides share
        assert np.isfinite(np.concatenate(scales)).all()


def test_weights_that_weight_decay_has_made_next_to_nothing_have_scales_all_the_same() -> None:
    sizes = np.random.default_rng(0).lognormal(size=(6, 5)).astype(np.float32)
    sizes[1] *= np.float32(1e-41)  # below what 32 bits can take the inverse of
    layer = Layer("decayed", (6, 5), 30, sizes.reshape(-1), None)
    assert layer.precision == np.float64
    a, b = mean_scales(layer)
    np.testing.assert_allclose((sizes / np.outer(a, b)).mean(axis=1), 1, rtol=1e-3)
    assert (a > 0).all()
