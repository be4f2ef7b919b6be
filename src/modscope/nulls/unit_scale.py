"""How large are the weights of each unit, and what would the layer be if that were all there is to it?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from modscope.nulls.layers import Layer

POWERS = (1.0, 0.5)  # of the power mean that is a unit's scale: the mean, or one that large weights sway less
N_ITERATIONS = 200
CONVERGED = 1e-5  # largest relative change of a scale
MAX_LEVERAGE = 0.8  # an entry that has its unit (nearly) to itself says nothing about residuals
FEW = 10  # entries per unit below which the noise of scales is computed exactly ...
MAX_EXACT = 600  # ... for at most so many units
N_STRATA = 3  # residuals move among entries of like scale: those of dead units are other than those of live ones
MIN_STRATUM = 50
N_SHAPE = 100_000  # entries that the choice of the power looks at


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
    """Sizes as a product, w_ij = a_i b_j r_ij."""

    row_scales: FittedScales
    column_scales: FittedScales
    origins: Int[np.ndarray, " residuals"] | None  # entries that residuals are known of; None = all
    residuals: Float[np.ndarray, " residuals"]
    power: float
    strata: tuple[Int[np.ndarray, " _stratum"], ...]  # residuals of entries of like scale, from small to large

    def draw_residuals(
        self, layer: Layer, rng: np.random.Generator
    ) -> tuple[Int[np.ndarray, " entries"], Float[np.ndarray, " entries"]]:
        """For each entry of the layer a residual of an entry of like scale, and which entry that was."""
        at_random = np.concatenate([rng.permutation(stratum) for stratum in self.strata])
        order = self._order_of(layer)
        chosen = np.empty(layer.n_entries, dtype=np.int64)
        # as many entries as residuals in each stratum, unless some residuals are not known: then some come twice
        chosen[order] = at_random[np.arange(layer.n_entries) * len(at_random) // layer.n_entries]
        return chosen if self.origins is None else self.origins[chosen], self.residuals[chosen]

    def _order_of(self, layer: Layer) -> Int[np.ndarray, " entries"]:
        """Entries from the smallest to the largest scale."""
        if layer not in _order_of_layer:
            _order_of_layer[layer] = np.argsort(self.expected(layer), kind="stable")
        return _order_of_layer[layer]

    def expected(self, layer: Layer) -> Float[np.ndarray, " entries"]:
        """What the size of each entry would be without a residual."""
        rows, columns = (np.exp(side.posterior_mean) for side in (self.row_scales, self.column_scales))
        return products(layer, rows, columns)


@dataclass(frozen=True, eq=False)
class Noise:
    """Variance of fitted log scales, and of fitted entries, in units of the variance of one log residual."""

    rows: Float[np.ndarray, " rows"]  # 0 for a unit without weights
    columns: Float[np.ndarray, " columns"]
    leverage: Float[np.ndarray, " entries"]  # share of an entry's own residual that its fitted scales have taken


_fit_of_layer: WeakKeyDictionary[Layer, ScaleFit] = WeakKeyDictionary()
_order_of_layer: WeakKeyDictionary[Layer, Int[np.ndarray, " entries"]] = WeakKeyDictionary()


def scale_fit(layer: Layer) -> ScaleFit:
    """Scales of the units on both sides of a layer with what is known of them, and the residuals.

    With n_i entries in row i, n_j in column j, N in all:

    1. For a power q: a_i^q = mean over row i's entries of (w_ij / b_j)^q, and b_j likewise, in turn until nothing
       changes; r_ij = w_ij / (a_i b_j).
    2. The fit takes a share h_ij of each entry's own residual with it, so log r_ij is divided by sqrt(1 - h_ij).
       h_ij = 1 / n_i + 1 / n_j - 1 / N; exact, from the layer's pattern, where units have few entries.
    3. Noise of a fitted log scale: v_i = cv^2 / (q^2 n_i) (exact as above), cv^2 = var(r^q) / mean(r^q)^2.
    4. Of the `POWERS`, q is the one with the smallest cv^2 / q^2: the mean for light tails, the power .5 for heavy
       ones, whose few large weights would otherwise be taken for large units. Smaller powers suit log-normal weights
       better still, but where most units are nearly dead they make null networks far more clustered than any network.
    5. Spread of the true log scales: s^2 = max(var(log a) - mean v, 0), mu = mean(log a). The true log a_i is
       N(mu + s^2 / (s^2 + v_i) (log a_i - mu), s^2 v_i / (s^2 + v_i)): the fitted ones hold the residuals' noise, and
       to use them as they are counts it twice.
    6. Residuals move among entries of like fitted scale a_i b_j, in up to `N_STRATA` classes of equal number.
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
    """What fitted log scales tell of the true ones, given the variance of each one's noise (step 5 of `scale_fit`)."""
    mean = float(log_scales[is_present].mean())
    spread = max(float(log_scales[is_present].var() - noise[is_present].mean()), 0.0)
    total = spread + noise
    kept = np.divide(spread, total, out=np.ones(len(noise)), where=total > 0)
    return FittedScales(mean + kept * (log_scales - mean), np.sqrt(kept * noise))


def _fitted(layer: Layer) -> ScaleFit:
    counts = _counts(layer)
    noise = _noise(layer, *counts)
    fit = _fitted_with(layer, POWERS[-1], counts, noise)
    best = _best_power(fit.residuals)
    return fit if best == fit.power else _fitted_with(layer, best, counts, noise)


def _fitted_with(
    layer: Layer,
    power: float,
    counts: tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]],
    noise: Noise,
) -> ScaleFit:
    powered = replace(layer, sizes=layer.sizes**power)  # the same type: float32 for large layers
    a, b = _balanced(powered.matrix, *counts)
    origins, residuals = _residuals(np.log(powered.sizes / products(powered, a, b)) / power, noise.leverage, power)
    variance = _squared_variation(residuals, power)
    sides = [
        posterior_scales(np.log(scales) / power, variance * factors, n > 0)
        for scales, factors, n in zip((a, b), (noise.rows, noise.columns), counts, strict=True)
    ]
    fit = ScaleFit(sides[0], sides[1], origins, residuals, power, ())
    expected = fit.expected(layer)
    order = np.argsort(expected if origins is None else expected[origins], kind="stable")
    n_strata = min(N_STRATA, max(1, len(order) // MIN_STRATUM))
    return replace(fit, strata=tuple(np.array_split(order, n_strata)))


def _residuals(
    log_ratios: Float[np.ndarray, " entries"], leverage: Float[np.ndarray, " entries"], power: float
) -> tuple[Int[np.ndarray, " residuals"] | None, Float[np.ndarray, " residuals"]]:
    """Entries whose residuals are known (None = all), and these, with the share given back that the fit took."""
    is_known = leverage < MAX_LEVERAGE
    if not is_known.any():
        leverage = np.zeros(len(log_ratios))
    origins = None if is_known.all() or not is_known.any() else np.flatnonzero(is_known)
    logs, leverage = (log_ratios, leverage) if origins is None else (log_ratios[origins], leverage[origins])
    middle = logs.mean(dtype=np.float64)
    logs = middle + (logs - middle) / np.sqrt(1 - leverage)
    level = np.log(np.exp(power * logs).mean(dtype=np.float64)) / power  # so that the mean of r^q is 1
    return origins, np.exp(logs - level).astype(log_ratios.dtype)


def _squared_variation(residuals: Float[np.ndarray, " residuals"], power: float) -> float:
    """Variance of the log of one entry's power mean: cv^2 / q^2."""
    powered = residuals.astype(np.float64) ** power
    return float(powered.var() / powered.mean() ** 2) / power**2


def _best_power(residuals: Float[np.ndarray, " residuals"]) -> float:
    """The power whose mean tells a unit's scale with the least noise."""
    some = residuals[:: max(1, len(residuals) // N_SHAPE)]
    return min(POWERS, key=lambda power: _squared_variation(some, power))


def _counts(layer: Layer) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]]:
    n_rows, n_columns = layer.shape
    if layer.is_full:
        return np.full(n_rows, float(n_columns)), np.full(n_columns, float(n_rows))
    return (
        np.bincount(layer.rows, minlength=n_rows).astype(np.float64),
        np.bincount(layer.columns, minlength=n_columns).astype(np.float64),
    )


def _noise(layer: Layer, n_row: Float[np.ndarray, " rows"], n_column: Float[np.ndarray, " columns"]) -> Noise:
    """Variances in the model log w_ij = log a_i + log b_j + noise of variance 1, by least squares."""
    n_units = len(n_row) + len(n_column)
    if not layer.is_full and n_units <= MAX_EXACT and layer.n_entries < FEW * n_units:
        return _exact_noise(layer, n_row, n_column)
    rows, columns = (np.divide(1.0, n, out=np.zeros(len(n)), where=n > 0) for n in (n_row, n_column))
    if layer.is_full:
        leverage = np.broadcast_to(rows[0] + columns[0] - 1 / layer.n_entries, layer.n_entries)
    else:
        leverage = rows[layer.rows] + columns[layer.columns] - 1 / layer.n_entries
    return Noise(rows, columns, leverage)


def _exact_noise(layer: Layer, n_row: Float[np.ndarray, " rows"], n_column: Float[np.ndarray, " columns"]) -> Noise:
    n_rows = len(n_row)
    normal = np.diag(np.concatenate([n_row, n_column]))  # X'X of the model: which scales stand in an entry together
    normal[layer.rows, n_rows + layer.columns] = normal[n_rows + layer.columns, layer.rows] = 1.0
    covariance = np.linalg.pinv(normal, hermitian=True)  # only the products of a and b are determined
    variance = np.diag(covariance)
    leverage = variance[layer.rows] + variance[n_rows + layer.columns]
    leverage = leverage + 2 * covariance[layer.rows, n_rows + layer.columns]
    return Noise(variance[:n_rows], variance[n_rows:], leverage)


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
