"""Does what is said of true scales agree with Bayes' rule, written out?"""

from __future__ import annotations

import numpy as np
import pytest

from modscope.nulls.layers import Layer
from modscope.nulls.scale_posterior import (
    FittedScales,
    JointScales,
    SeparateScales,
    fit_noise,
    mean_and_spread,
    posterior_of_layer,
    posterior_scales,
)

RNG = np.random.default_rng(0)
FITTED = FittedScales(RNG.normal(2, 1.5, size=30), RNG.uniform(0.1, 1, size=30), np.arange(30) != 4)


def pattern(n_rows: int, n_columns: int, density: float) -> Layer:
    """A layer of ones; every row and column has some."""
    is_there = np.random.default_rng(1).random((n_rows, n_columns)) < density
    is_there[0], is_there[:, 0] = True, True
    positions = np.flatnonzero(is_there)
    return Layer("pattern", (n_rows, n_columns), n_rows * n_columns, np.ones(len(positions)), positions)


def design(layer: Layer) -> np.ndarray:
    """Which row's and which column's scale stands in each entry."""
    marks = np.zeros((layer.n_entries, sum(layer.shape)))
    marks[np.arange(layer.n_entries), layer.rows] = 1
    marks[np.arange(layer.n_entries), layer.shape[0] + layer.columns] = 1
    return marks


def test_the_spread_solves_its_equation_and_leaves_out_absent_units() -> None:
    mean, spread = mean_and_spread(FITTED)
    present = FITTED.is_present
    weights = 1 / (spread + FITTED.noise[present])
    assert mean == pytest.approx((weights * FITTED.log_scales[present]).sum() / weights.sum())
    assert (weights * (FITTED.log_scales[present] - mean) ** 2).sum() == pytest.approx(present.sum() - 1)


def test_scales_that_differ_no_more_than_their_noise_have_no_spread_and_are_all_the_same() -> None:
    fitted = FittedScales(np.array([1.0, 1.1, 0.9]), np.ones(3), np.ones(3, dtype=bool))
    assert mean_and_spread(fitted) == pytest.approx((1.0, 0.0))
    posterior = posterior_scales(fitted)
    np.testing.assert_allclose(posterior.mean, 1.0)
    np.testing.assert_allclose(posterior.sd, 0.0)


def test_the_posterior_of_a_unit_is_bayes_rule_for_two_normal_distributions() -> None:
    mean, spread = mean_and_spread(FITTED)
    posterior = posterior_scales(FITTED)
    precision = 1 / spread + 1 / FITTED.noise
    np.testing.assert_allclose(posterior.sd, precision**-0.5)
    np.testing.assert_allclose(posterior.mean, (mean / spread + FITTED.log_scales / FITTED.noise) / precision)


def test_true_scales_fall_within_their_posteriors_as_often_as_they_should() -> None:
    rng = np.random.default_rng(2)
    noise = rng.uniform(0.05, 1, size=5000)
    true = rng.normal(0.5, 0.8, size=5000)
    fitted = FittedScales(true + np.sqrt(noise) * rng.normal(size=5000), noise, np.ones(5000, dtype=bool))
    posterior = posterior_scales(fitted)
    standard = (true - posterior.mean) / posterior.sd
    assert standard.mean() == pytest.approx(0, abs=0.06)
    assert standard.std() == pytest.approx(1, abs=0.05)
    assert np.log(posterior.draw(rng)).var() == pytest.approx(0.8**2, rel=0.1)  # fitted ones: .8^2 + .5


def test_the_noise_of_few_weights_is_that_of_least_squares() -> None:
    layer = pattern(12, 10, 0.3)
    covariance = np.linalg.pinv(design(layer).T @ design(layer))
    noise = fit_noise(layer)
    np.testing.assert_allclose(np.concatenate(noise.variances), np.diag(covariance))
    hat = design(layer) @ covariance @ design(layer).T
    np.testing.assert_allclose(noise.leverage, np.diag(hat))


def test_the_noise_of_a_full_layer_is_one_over_the_number_of_weights() -> None:
    layer = Layer("full", (4, 8), 32, np.ones(32), None)
    rows, columns = fit_noise(layer).variances
    np.testing.assert_allclose(rows, 1 / 8)
    np.testing.assert_allclose(columns, 1 / 4)
    assert fit_noise(layer).leverage == pytest.approx((4 + 8 - 1) / 32)  # free parameters over entries


def test_scales_of_few_weights_are_drawn_with_the_covariance_of_bayesian_least_squares() -> None:
    layer = pattern(6, 5, 0.4)
    rng = np.random.default_rng(3)
    fitted = (rng.normal(1, 2, size=6), rng.normal(size=5))
    scales = posterior_of_layer(layer, fitted, fit_noise(layer), variance=0.3)
    assert isinstance(scales, JointScales)
    spreads = []
    for side, factors in zip(fitted, fit_noise(layer).variances, strict=True):
        spreads += [mean_and_spread(FittedScales(side, 0.3 * factors, np.ones(len(side), dtype=bool)))[1]] * len(side)
    precision = design(layer).T @ design(layer) / 0.3 + np.diag(1 / np.maximum(spreads, 1e-8))
    np.testing.assert_allclose(scales.root @ scales.root.T, np.linalg.inv(precision), rtol=1e-6, atol=1e-9)
    draws = np.array([np.log(np.concatenate(scales.draw(np.random.default_rng(i)))) for i in range(3000)])
    sd = np.sqrt(np.diag(np.linalg.inv(precision)))
    assert np.abs((draws.mean(axis=0) - scales.mean) / sd).max() < 4.5 / np.sqrt(3000)


def test_scales_known_without_noise_are_drawn_as_they_are() -> None:
    layer = pattern(6, 5, 0.4)
    fitted = (np.arange(6.0), np.arange(5.0))
    scales = posterior_of_layer(layer, fitted, fit_noise(layer), variance=0.0)
    assert isinstance(scales, SeparateScales)
    for drawn, given in zip(scales.draw(np.random.default_rng(0)), fitted, strict=True):
        np.testing.assert_allclose(np.log(drawn), given, atol=1e-9)
