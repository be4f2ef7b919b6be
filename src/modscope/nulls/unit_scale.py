"""How large are the weights of each unit, and what would the layer be if that were all there is to it?"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from modscope.nulls.layers import Layer

N_ITERATIONS = 200
CONVERGED = 1e-5  # largest relative change of a scale


@dataclass(frozen=True, eq=False)
class ScaleFit:
    """Sizes as a product, w_ij = a_i b_j r_ij, with what is known of the log scales of rows and of columns."""

    row_scales: FittedScales
    column_scales: FittedScales


@dataclass(frozen=True, eq=False)
class FittedScales:
    """Scales of the units on one side of a layer; NaN for a unit without weights."""

    values: Float[np.ndarray, " units"]  # a_i, as fitted
    mean: float  # of log a
    posterior_mean: Float[np.ndarray, " units"]  # of the true log a_i, given the fitted one
    posterior_sd: Float[np.ndarray, " units"]

    def draw(self, rng: np.random.Generator) -> Float[np.ndarray, " units"]:
        """Scales that could have been the true ones."""
        drawn: np.ndarray = np.exp(rng.normal(self.posterior_mean, self.posterior_sd))
        return drawn


_fit_of_layer: WeakKeyDictionary[Layer, ScaleFit] = WeakKeyDictionary()


def scale_fit(layer: Layer) -> ScaleFit:
    """Scales of the units on both sides of a layer, and how sure they are.

    With N entries in R rows and C columns that have any, n_i of them in row i:

    1. a_i = mean over row i's entries of w_ij / b_j, and b_j likewise, in turn until nothing changes;
       r_ij = w_ij / (a_i b_j).
    2. Noise of a fitted log scale: v_i = cv^2 / n_i, with cv^2 = var(r) / mean(r)^2 x N / (N - R - C + 1).
    3. Spread of the true log scales: s^2 = max(var(log a) - mean v, 0), mu = mean(log a).
    4. The true log a_i is N(mu + s^2 / (s^2 + v_i) (log a_i - mu), s^2 v_i / (s^2 + v_i)).

    The fitted scales themselves hold the noise of the residuals: to use them as they are counts it twice.
    """
    if layer not in _fit_of_layer:
        _fit_of_layer[layer] = _fitted(layer)
    return _fit_of_layer[layer]


def residuals(layer: Layer) -> Float[np.ndarray, " entries"]:
    """Sizes of the entries, without the scales of their units."""
    fit = scale_fit(layer)
    sizes: np.ndarray = layer.sizes / products(layer, fit.row_scales.values, fit.column_scales.values)
    return sizes


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


def _fitted(layer: Layer) -> ScaleFit:
    matrix = layer.matrix
    n_row, n_column = _counts(layer)
    a, b = _balanced(matrix, n_row, n_column)
    r = layer.sizes / products(layer, a, b)
    n_free = max(layer.n_entries - int(np.count_nonzero(n_row)) - int(np.count_nonzero(n_column)) + 1, 1)
    cv_squared = float(r.var(dtype=np.float64) / r.mean(dtype=np.float64) ** 2) * layer.n_entries / n_free
    return ScaleFit(posterior_scales(a, n_row, cv_squared), posterior_scales(b, n_column, cv_squared))


def _counts(layer: Layer) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]]:
    n_rows, n_columns = layer.shape
    if layer.is_full:
        return np.full(n_rows, float(n_columns)), np.full(n_columns, float(n_rows))
    return (
        np.bincount(layer.rows, minlength=n_rows).astype(np.float64),
        np.bincount(layer.columns, minlength=n_columns).astype(np.float64),
    )


def _balanced(
    matrix: Float[np.ndarray, "rows columns"] | sp.csr_array,
    n_row: Float[np.ndarray, " rows"],
    n_column: Float[np.ndarray, " columns"],
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]]:
    """Scales a, b with mean 1 of w_ij / (a_i b_j) over the entries of every row and column; 1 for an empty one."""
    transposed = matrix.T if isinstance(matrix, np.ndarray) else matrix.T.tocsr()
    a, b = np.ones(len(n_row)), np.ones(len(n_column))
    for _ in range(N_ITERATIONS):
        before = a
        a = _mean_without(matrix, b, n_row)
        b = _mean_without(transposed, a, n_column)
        if np.abs(a / before - 1).max(initial=0.0) < CONVERGED:
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


def posterior_scales(
    scales: Float[np.ndarray, " units"], counts: Float[np.ndarray, " units"], cv_squared: float
) -> FittedScales:
    """What fitted scales tell of the true ones: steps 2 to 4 of `scale_fit`, with `counts` entries per unit."""
    present = counts > 0
    log_scales, noise = np.log(scales), np.divide(cv_squared, counts, out=np.zeros(len(counts)), where=present)
    mean = float(log_scales[present].mean())
    spread = max(float(log_scales[present].var() - noise[present].mean()), 0.0)
    total = np.maximum(spread + noise, np.finfo(float).tiny)
    kept = np.where(spread + noise > 0, spread / total, 1.0)
    return FittedScales(
        scales, mean, posterior_mean=mean + kept * (log_scales - mean), posterior_sd=np.sqrt(kept * noise)
    )
