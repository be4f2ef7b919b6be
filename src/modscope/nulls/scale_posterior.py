"""What do fitted scales of units tell of the true ones?

A fitted log scale is the true one and noise. True log scales are taken as normal around a common mean, so that the
true one, given the fitted one, is normal too: nearer to the mean, and less certain the fewer weights a unit has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float

from modscope.nulls.layer_sums import Sides, entry_counts
from modscope.nulls.layers import Layer

FEW = 10  # entries per unit below which all scales are drawn together, since they are known only together ...
MAX_JOINT = 600  # ... for at most so many units
LEAST_VARIANCE = 1e-12  # of the noise of a fitted log scale
LEAST_SPREAD = 1e-8  # variance of true log scales that are all the same, where 1 / 0 is not to be had


@dataclass(frozen=True, eq=False)
class ScalePosterior:
    """Normal distributions of the true log scales of some units, each on its own."""

    mean: Float[np.ndarray, " units"]
    sd: Float[np.ndarray, " units"]

    def draw(self, rng: np.random.Generator) -> Float[np.ndarray, " units"]:
        """Scales that could have been the true ones."""
        drawn: np.ndarray = np.exp(rng.normal(self.mean, self.sd))
        return drawn


@dataclass(frozen=True, eq=False)
class SeparateScales:
    """What is known of the scales of a layer whose units have weights enough to be drawn one by one."""

    rows: ScalePosterior
    columns: ScalePosterior

    def draw(self, rng: np.random.Generator) -> Sides:
        """Scales that could have been the true ones."""
        return self.rows.draw(rng), self.columns.draw(rng)


@dataclass(frozen=True, eq=False)
class JointScales:
    """What is known of the scales of a layer whose units have few weights: one normal distribution of all logs."""

    n_rows: int
    mean: Float[np.ndarray, " units"]  # rows, then columns
    root: Float[np.ndarray, "units units"]  # root @ root.T is the covariance

    def draw(self, rng: np.random.Generator) -> Sides:
        """Scales that could have been the true ones."""
        drawn = np.exp(self.mean + self.root @ rng.standard_normal(len(self.mean)))
        return drawn[: self.n_rows], drawn[self.n_rows :]


LayerScales: TypeAlias = SeparateScales | JointScales


@dataclass(frozen=True, eq=False)
class FitNoise:
    """How uncertain least squares leave the scales, if one entry tells a log scale with variance 1."""

    variances: Sides  # of the fitted log scales; 0 for a unit without weights
    leverage: float | Float[np.ndarray, " entries"]  # share of an entry's residual that its fitted scales have taken


@dataclass(frozen=True, eq=False)
class FittedScales:
    """Log scales as they were fitted to the weights of some units."""

    log_scales: Float[np.ndarray, " units"]
    noise: Float[np.ndarray, " units"]  # variance of each one's error
    is_present: Bool[np.ndarray, " units"]  # false for a unit without weights: its scale tells nothing


def posterior_of_layer(layer: Layer, log_scales: Sides, noise: FitNoise, variance: float) -> LayerScales:
    """What the fitted log scales of a layer's rows and columns tell of the true ones.

    Args:
        layer: Says which units meet in an entry.
        log_scales: Fitted ones.
        noise: `fit_noise(layer)`.
        variance: That with which one entry tells a log scale; 0 = the fitted scales are the true ones.
    """
    rows, columns = (
        FittedScales(scales, variance * factors, n > 0)
        for scales, factors, n in zip(log_scales, noise.variances, entry_counts(layer), strict=True)
    )
    if _are_joint(layer) and variance > 0:
        return _joint_posterior(layer, rows, columns, variance)
    return SeparateScales(posterior_scales(rows), posterior_scales(columns))


def posterior_scales(fitted: FittedScales) -> ScalePosterior:
    """What fitted log scales tell of the true ones, each unit on its own.

    The true ones have mean mu and variance s^2 (`mean_and_spread`), and the fitted log a_i a noise of variance v_i:
    N(mu + k (log a_i - mu), k v_i), k = s^2 / (s^2 + v_i).
    """
    mean, spread = mean_and_spread(fitted)
    total = spread + fitted.noise
    kept = np.divide(spread, total, out=np.ones(len(total)), where=total > 0)
    return ScalePosterior(mean + kept * (fitted.log_scales - mean), np.sqrt(kept * fitted.noise))


def mean_and_spread(fitted: FittedScales) -> tuple[float, float]:
    """Mean mu and variance s^2 of the true log scales of the units that are present.

    s^2 solves sum_i (log a_i - mu)^2 / (s^2 + v_i) = units - 1, where mu is the mean with weights 1 / (s^2 + v_i); it
    is 0 where the fitted scales differ no more than their noise v_i explains.

    Source: Paule & Mandel 1982.
    """
    log_scales, noise = fitted.log_scales[fitted.is_present], fitted.noise[fitted.is_present]
    if len(log_scales) < 2:
        return float(log_scales.sum()), 0.0
    noise = np.maximum(noise, LEAST_VARIANCE)

    def mean_at(spread: float) -> float:
        return float(np.average(log_scales, weights=1 / (spread + noise)))

    def excess(spread: float) -> float:
        deviations = (log_scales - mean_at(spread)) ** 2 / (spread + noise)
        return float(deviations.sum()) - (len(log_scales) - 1)

    if excess(0.0) <= 0:
        return mean_at(0.0), 0.0
    from scipy.optimize import brentq

    spread = float(brentq(excess, 0.0, 4 * float(log_scales.var()) + 1e-9, xtol=1e-12))
    return mean_at(spread), spread


def fit_noise(layer: Layer) -> FitNoise:
    """Variances in the model log w_ij = log a_i + log b_j + noise of variance 1, by least squares.

    Exact where units have few weights; else as if every unit's scale were fitted with all others known, v_i = 1 / n_i.
    """
    counts = entry_counts(layer)
    if _are_joint(layer):
        return _exact_noise(layer, counts)
    rows, columns = (np.divide(1.0, n, out=np.zeros(len(n)), where=n > 0) for n in counts)
    if layer.is_full:
        return FitNoise((rows, columns), min(float(rows[0] + columns[0] - 1 / layer.n_entries), 1.0))
    return FitNoise((rows, columns), rows[layer.rows] + columns[layer.columns] - 1 / layer.n_entries)


def _exact_noise(layer: Layer, counts: Sides) -> FitNoise:
    n_rows = layer.shape[0]
    # only the products of a and b are determined
    covariance = np.linalg.pinv(_normal_matrix(layer, counts), hermitian=True)
    variance = np.diag(covariance)
    leverage = variance[layer.rows] + variance[n_rows + layer.columns]
    leverage = leverage + 2 * covariance[layer.rows, n_rows + layer.columns]
    return FitNoise((variance[:n_rows], variance[n_rows:]), leverage)


def _joint_posterior(layer: Layer, rows: FittedScales, columns: FittedScales, variance: float) -> JointScales:
    """Posterior of all log scales together: least squares with a normal prior for either side."""
    fitted = np.concatenate([rows.log_scales, columns.log_scales])
    prior_mean, prior_spread = np.empty(len(fitted)), np.empty(len(fitted))
    for side, units in ((rows, slice(None, layer.shape[0])), (columns, slice(layer.shape[0], None))):
        prior_mean[units], prior_spread[units] = mean_and_spread(side)
    prior = 1 / np.maximum(prior_spread, LEAST_SPREAD)
    data = _normal_matrix(layer, entry_counts(layer)) / variance
    precision = data + np.diag(prior)
    mean = np.linalg.solve(precision, data @ fitted + prior * prior_mean)
    root = np.linalg.inv(np.linalg.cholesky(precision)).T
    return JointScales(layer.shape[0], mean, root)


def _are_joint(layer: Layer) -> bool:
    n_units = sum(layer.shape)
    return not layer.is_full and n_units <= MAX_JOINT and layer.n_entries < FEW * n_units


def _normal_matrix(layer: Layer, counts: Sides) -> Float[np.ndarray, "units units"]:
    """How often the scales of two units stand in an entry together."""
    normal = np.diag(np.concatenate(counts))
    columns = layer.shape[0] + layer.columns
    normal[layer.rows, columns] = normal[columns, layer.rows] = 1.0
    return normal
