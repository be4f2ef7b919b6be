"""How large are the weights of each unit, and what would the layer be if that were all there is to it?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from modscope.nulls.layers import Layer
from modscope.nulls.order import random_order
from modscope.nulls.residual_shape import ResidualShape, fitted_shape
from modscope.randomness import numbered

N_SWEEPS = 200  # of a fit, at most
CLOSE = 1e-3  # change of a log scale at which a fit ends
LARGE = 1_000_000  # entries of a layer whose shape is fitted once: its units have so many that its scales are exact
N_ROUNDS = 3  # shape and scales in turn
LONGEST_STEP = 1.0  # of a log scale
FEW = 10  # entries per unit below which all scales are drawn together, since they are known only together ...
MAX_EXACT = 600  # ... for at most so many units
N_CHECKED = 12  # draws that a fit is checked with
LIMIT = 3.0  # standard deviations of their total size, within which the layer's own must lie
LEAST_SPREAD = 0.02  # of the log total; a smaller error does not matter


@dataclass(frozen=True, eq=False)
class FittedScales:
    """Log scales of the units on one side of a layer: what is known of the true ones, given the fitted ones."""

    posterior_mean: Float[np.ndarray, " units"]
    posterior_sd: Float[np.ndarray, " units"]

    def draw(self, rng: np.random.Generator) -> Float[np.ndarray, " units"]:
        """Scales that could have been the true ones."""
        drawn: np.ndarray = np.exp(rng.normal(self.posterior_mean, self.posterior_sd))
        return drawn


@dataclass(frozen=True, eq=False)
class ScaleFit:
    """Log scales of rows and columns as far as the data tell them."""

    rows: FittedScales
    columns: FittedScales
    by_mean: bool  # the scale of a unit is the mean of its weights; else what the shape of the residuals makes it
    joint_mean: Float[np.ndarray, " units"] | None = None  # of rows and columns, where they are drawn together
    joint_root: Float[np.ndarray, "units units"] | None = None  # root @ root.T is their covariance

    def draw(self, rng: np.random.Generator) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]]:
        """Scales that could have been the true ones."""
        if self.joint_mean is None or self.joint_root is None:
            return self.rows.draw(rng), self.columns.draw(rng)
        drawn = np.exp(self.joint_mean + self.joint_root @ rng.standard_normal(len(self.joint_mean)))
        n_rows = len(self.rows.posterior_mean)
        return drawn[:n_rows], drawn[n_rows:]


@dataclass(frozen=True, eq=False)
class Noise:
    """Variance of fitted log scales, in units of the variance that one entry tells a log scale with."""

    rows: Float[np.ndarray, " rows"]  # 0 for a unit without weights
    columns: Float[np.ndarray, " columns"]
    leverage: float | Float[np.ndarray, " entries"]  # share of an entry's residual that its fitted scales have taken


Counts: TypeAlias = tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]]

_fit_of_layer: WeakKeyDictionary[Layer, ScaleFit] = WeakKeyDictionary()


def scaled_anew(
    layer: Layer, positioned: Layer, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " entries"], Float[np.ndarray, " entries"]]:
    """The layer's residuals in random order, times the scales, where the entries of `positioned` stand.

    Scales a, b are drawn from what the data tell of them; with these, entry q leaves the residual w_q / (a b)_q, and
    the entry that comes to p is (a b)_p w_q / (a b)_q.

    Returns:
        Which entry came to each position, and its new size.
    """
    return _scaled_with(scale_fit(layer), layer, positioned, rng)


def scale_fit(layer: Layer) -> ScaleFit:
    """What the data tell of the scales a_i, b_j in w_ij = a_i b_j r_ij, where nothing is known of r but its shape.

    With n_i entries in row i:

    1. The density f of log r is a member of the family of `ResidualShape`; log a, log b and f are fitted in turn, by
       maximum likelihood: the sum of the scores -(log f)'(log r_ij) is zero over each row and column.
    2. A fitted log scale has the variance v_i = 1 / (n_i J), J = the information of f (exact, from the layer's
       pattern, where units have few entries; all scales are then drawn together).
    3. Spread of the true log scales: s^2 such that sum_i (log a_i - mu)^2 / (s^2 + v_i) = units - 1, mu = the mean
       with weights 1 / (s^2 + v_i). So the true log a_i is N(mu + k (log a_i - mu), k v_i), k = s^2 / (s^2 + v_i).
       The fitted ones hold the residuals' noise, and to use them as they are counts it twice.
    4. Residuals are taken with the drawn scales, not the fitted ones: those have taken a share of every residual. A
       step along the score and a draw of the same noise leave f as it is (Langevin), whatever its tails.
    5. Where this is not how the layer is (a mixture of live and nearly dead units), products of typical scales and
       residuals give other networks. So a few layers are drawn; if their total size is not that of the layer within
       `LIMIT` standard deviations, the scale of a unit is the mean of its weights: a_i = mean_j(w_ij / b_j), with
       v_i = cv^2 / n_i, cv = the coefficient of variation of r. Means keep the totals, and tell less.

    Source: 3 as in Paule & Mandel 1982.
    """
    if layer not in _fit_of_layer:
        _fit_of_layer[layer] = _fitted(layer)
    return _fit_of_layer[layer]


def products(
    layer: Layer, row_scales: Float[np.ndarray, " rows"], column_scales: Float[np.ndarray, " columns"]
) -> Float[np.ndarray, " entries"]:
    """a_i b_j of each entry."""
    dtype = layer.sizes.dtype
    row_scales, column_scales = row_scales.astype(dtype), column_scales.astype(dtype)
    if layer.is_full:
        grid: np.ndarray = np.multiply.outer(row_scales, column_scales)
        return grid.reshape(-1)
    listed: np.ndarray = row_scales[layer.rows] * column_scales[layer.columns]
    return listed


def posterior_scales(
    log_scales: Float[np.ndarray, " units"], noise: Float[np.ndarray, " units"], is_present: Bool[np.ndarray, " units"]
) -> FittedScales:
    """What fitted log scales tell of the true ones, given the variance of each one's noise (step 3 of `scale_fit`)."""
    mean, spread = _mean_and_spread(log_scales[is_present], noise[is_present])
    total = spread + noise
    kept = np.divide(spread, total, out=np.ones(len(noise)), where=total > 0)
    return FittedScales(mean + kept * (log_scales - mean), np.sqrt(kept * noise))


def _scaled_with(
    fit: ScaleFit, layer: Layer, positioned: Layer, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " entries"], Float[np.ndarray, " entries"]]:
    rows, columns = fit.draw(rng)
    before = products(layer, rows, columns)
    after = before if positioned is layer else products(positioned, rows, columns)
    origins = random_order(layer.n_entries, rng)
    residuals = layer.sizes / before
    return origins, np.take(residuals, origins) * after


def _mean_and_spread(log_scales: Float[np.ndarray, " some"], noise: Float[np.ndarray, " some"]) -> tuple[float, float]:
    """Mean and variance of the true log scales."""
    if len(log_scales) < 2:
        return float(log_scales.sum()), 0.0
    noise = np.maximum(noise, 1e-12)

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


def _fitted(layer: Layer) -> ScaleFit:
    counts = _counts(layer)
    noise = _noise(layer, *counts)
    fit = _fitted_by_shape(layer, counts, noise)
    return fit if _gives_its_total(layer, fit) else _fitted_by_mean(layer, counts, noise)


def _gives_its_total(layer: Layer, fit: ScaleFit) -> bool:
    """Are layers drawn with this fit as large as the layer itself?"""
    n_draws = N_CHECKED if layer.n_entries <= LARGE else N_CHECKED // 3
    totals = []
    for index in range(n_draws):
        _, sizes = _scaled_with(fit, layer, layer, numbered(0, "check of a fit", index))
        totals.append(np.log(sizes.sum(dtype=np.float64)))
    own = np.log(layer.sizes.sum(dtype=np.float64))
    return bool(abs(np.mean(totals) - own) <= LIMIT * max(float(np.std(totals)), LEAST_SPREAD))


def _fitted_by_shape(layer: Layer, counts: Counts, noise: Noise) -> ScaleFit:
    """Steps 1 to 3 of `scale_fit`."""
    logs = np.log(layer.sizes)
    a, b = _log_means(layer, logs, counts)
    residuals = (logs - _sums(layer, a, b)) / np.sqrt(1 - np.minimum(noise.leverage, 0.9))
    fit = None
    for index in range(N_ROUNDS if layer.n_entries <= LARGE else 1):
        shape = fitted_shape(residuals)
        if shape is None:
            break
        a, b = _most_likely(layer, logs, a, b, shape, counts)
        fit = _posterior(layer, a, b, counts, noise, 1 / shape.information)
        if layer.n_entries <= LARGE:
            rows, columns = fit.draw(numbered(0, "residuals of a fit", index))
            residuals = logs - _sums(layer, np.log(rows), np.log(columns))
    return _posterior(layer, a, b, counts, noise, 0.0) if fit is None else fit


def _log_means(
    layer: Layer, logs: Float[np.ndarray, " entries"], counts: Counts
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]]:
    """Log scales by least squares."""
    a, b = (np.zeros(len(n)) for n in counts)
    for _ in range(N_SWEEPS):
        step = _by_rows(layer, logs - _sums(layer, a, b)) / np.maximum(counts[0], 1)
        a += step
        b += _by_columns(layer, logs - _sums(layer, a, b)) / np.maximum(counts[1], 1)
        if layer.is_full or np.abs(step).max(initial=0.0) < CLOSE:  # one sweep is all where every entry is there
            return a, b
    return a, b


def _most_likely(
    layer: Layer,
    logs: Float[np.ndarray, " entries"],
    a: Float[np.ndarray, " rows"],
    b: Float[np.ndarray, " columns"],
    shape: ResidualShape,
    counts: Counts,
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]]:
    """Log scales at which the scores of every row and column add up to zero."""
    for _ in range(N_SWEEPS):
        steps = []
        for scales, by_units, n in ((a, _by_rows, counts[0]), (b, _by_columns, counts[1])):
            residuals = logs - _sums(layer, a, b)
            pull, slope = by_units(layer, shape.score(residuals)), by_units(layer, shape.slope(residuals))
            # never less than its mean: in the far tails the slope is next to nothing, and Newton's step too long
            step = np.clip(pull / np.maximum(slope, np.maximum(n, 1) * shape.information), -LONGEST_STEP, LONGEST_STEP)
            scales += step
            steps.append(float(np.abs(step).max(initial=0.0)))
        if max(steps) < CLOSE:
            break
    return a, b


def _fitted_by_mean(layer: Layer, counts: Counts, noise: Noise) -> ScaleFit:
    """Step 5 of `scale_fit`."""
    a, b = _balanced(layer.matrix, *counts)
    logs = np.log(layer.sizes / products(layer, a, b))
    middle = logs.mean(dtype=np.float64)
    residuals = np.exp((logs - middle) / np.sqrt(1 - np.minimum(noise.leverage, 0.8)))
    mean = float(residuals.mean(dtype=np.float64))
    variance = float(residuals.var(dtype=np.float64)) / mean**2
    return _posterior(layer, np.log(a), np.log(b), counts, noise, variance, by_mean=True)


def _posterior(
    layer: Layer,
    a: Float[np.ndarray, " rows"],
    b: Float[np.ndarray, " columns"],
    counts: Counts,
    noise: Noise,
    variance: float,
    *,
    by_mean: bool = False,
) -> ScaleFit:
    """What log scales a, b tell of the true ones, if one entry tells a log scale with this variance."""
    sides = [
        posterior_scales(scales, variance * factors, n > 0)
        for scales, factors, n in zip((a, b), (noise.rows, noise.columns), counts, strict=True)
    ]
    if not _is_exact(layer) or variance == 0:
        return ScaleFit(sides[0], sides[1], by_mean)
    prior_means, prior_spreads = [], []
    for scales, factors, n in zip((a, b), (noise.rows, noise.columns), counts, strict=True):
        mean, spread = _mean_and_spread(scales[n > 0], variance * factors[n > 0])
        prior_means.append(np.full(len(n), mean))
        prior_spreads.append(np.full(len(n), max(spread, 1e-8)))
    data = _normal_matrix(layer, *counts) / variance
    prior = 1 / np.concatenate(prior_spreads)
    precision = data + np.diag(prior)
    mean_of_all = np.linalg.solve(precision, data @ np.concatenate([a, b]) + prior * np.concatenate(prior_means))
    root = np.linalg.inv(np.linalg.cholesky(precision)).T
    return ScaleFit(sides[0], sides[1], by_mean, mean_of_all, root)


def _counts(layer: Layer) -> Counts:
    n_rows, n_columns = layer.shape
    if layer.is_full:
        return np.full(n_rows, float(n_columns)), np.full(n_columns, float(n_rows))
    return (
        np.bincount(layer.rows, minlength=n_rows).astype(np.float64),
        np.bincount(layer.columns, minlength=n_columns).astype(np.float64),
    )


def _is_exact(layer: Layer) -> bool:
    n_units = sum(layer.shape)
    return not layer.is_full and n_units <= MAX_EXACT and layer.n_entries < FEW * n_units


def _noise(layer: Layer, n_row: Float[np.ndarray, " rows"], n_column: Float[np.ndarray, " columns"]) -> Noise:
    """Variances in the model log w_ij = log a_i + log b_j + noise of variance 1, by least squares."""
    if _is_exact(layer):
        return _exact_noise(layer, n_row, n_column)
    rows, columns = (np.divide(1.0, n, out=np.zeros(len(n)), where=n > 0) for n in (n_row, n_column))
    if layer.is_full:
        return Noise(rows, columns, min(float(rows[0] + columns[0] - 1 / layer.n_entries), 1.0))
    return Noise(rows, columns, rows[layer.rows] + columns[layer.columns] - 1 / layer.n_entries)


def _exact_noise(layer: Layer, n_row: Float[np.ndarray, " rows"], n_column: Float[np.ndarray, " columns"]) -> Noise:
    n_rows = len(n_row)
    # only the products of a and b are determined
    covariance = np.linalg.pinv(_normal_matrix(layer, n_row, n_column), hermitian=True)
    variance = np.diag(covariance)
    leverage = variance[layer.rows] + variance[n_rows + layer.columns]
    leverage = leverage + 2 * covariance[layer.rows, n_rows + layer.columns]
    return Noise(variance[:n_rows], variance[n_rows:], leverage)


def _normal_matrix(
    layer: Layer, n_row: Float[np.ndarray, " rows"], n_column: Float[np.ndarray, " columns"]
) -> Float[np.ndarray, "units units"]:
    """How often the scales of two units stand in an entry together."""
    normal = np.diag(np.concatenate([n_row, n_column]))
    columns = len(n_row) + layer.columns
    normal[layer.rows, columns] = normal[columns, layer.rows] = 1.0
    return normal


def _sums(
    layer: Layer, a: Float[np.ndarray, " rows"], b: Float[np.ndarray, " columns"]
) -> Float[np.ndarray, " entries"]:
    """a_i + b_j of each entry."""
    a, b = a.astype(layer.sizes.dtype), b.astype(layer.sizes.dtype)
    sums: np.ndarray = np.add.outer(a, b).reshape(-1) if layer.is_full else a[layer.rows] + b[layer.columns]
    return sums


def _by_rows(layer: Layer, values: Float[np.ndarray, " entries"]) -> Float[np.ndarray, " rows"]:
    if layer.is_full:
        full: np.ndarray = values.reshape(layer.shape).sum(axis=1, dtype=np.float64)
        return full
    return np.bincount(layer.rows, values, layer.shape[0])


def _by_columns(layer: Layer, values: Float[np.ndarray, " entries"]) -> Float[np.ndarray, " columns"]:
    if layer.is_full:
        full: np.ndarray = values.reshape(layer.shape).sum(axis=0, dtype=np.float64)
        return full
    return np.bincount(layer.columns, values, layer.shape[1])


def _balanced(
    matrix: Float[np.ndarray, "rows columns"] | sp.csr_array,
    n_row: Float[np.ndarray, " rows"],
    n_column: Float[np.ndarray, " columns"],
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]]:
    """Scales a, b with mean 1 of w_ij / (a_i b_j) over the entries of every row and column; 1 for an empty one."""
    transposed = matrix.T if isinstance(matrix, np.ndarray) else matrix.T.tocsr()
    a, b = np.ones(len(n_row)), np.ones(len(n_column))
    for _ in range(N_SWEEPS):
        before = a
        a = _mean_without(matrix, b, n_row)
        b = _mean_without(transposed, a, n_column)
        if np.abs(a / before - 1).max(initial=0.0) < 1e-2 * CLOSE:
            break
    level = np.exp(np.log(b).mean())  # only the product of the two levels is determined
    return a * level, b / level


def _mean_without(
    matrix: Float[np.ndarray, "rows columns"] | sp.csr_array,
    scales: Float[np.ndarray, " columns"],
    counts: Float[np.ndarray, " rows"],
) -> Float[np.ndarray, " rows"]:
    sums = (matrix @ (1 / scales).astype(matrix.dtype)).astype(np.float64)
    means: np.ndarray = np.divide(sums, counts, out=np.ones(len(counts)), where=counts > 0)
    return means
