"""What would a layer be if the scales of its units were all there is to it?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float, Int

from modscope.nulls.layer_sums import products, sums
from modscope.nulls.layers import Layer
from modscope.nulls.order import order_among_alike, random_order
from modscope.nulls.residual_shape import fitted_shape
from modscope.nulls.scale_estimates import least_squares_log_scales, mean_scales, most_likely_log_scales
from modscope.nulls.scale_posterior import FitNoise, LayerScales, fit_noise, posterior_of_layer
from modscope.randomness import numbered

LARGE = 1_000_000  # entries of a layer whose shape is fitted once: its units have so many that its scales are exact
N_ROUNDS = 3  # shape and scales in turn
N_CHECKED = 12  # draws that a fit is checked with
LIMIT = 3.0  # standard deviations of their total size, within which the layer's own must lie
LEAST_SPREAD = 0.02  # of the log total; a smaller error does not matter
SMALLEST, LARGEST = 1.2e-38, 1e30  # sizes that graphs and networks can hold, where a layer's own come near them

# from what is expected of each entry, which residual comes to it
Order: TypeAlias = Callable[[Float[np.ndarray, " entries"], np.random.Generator], Int[np.ndarray, " entries"]]

_scales_of_layer: WeakKeyDictionary[Layer, LayerScales] = WeakKeyDictionary()  # fitted once for all null samples


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


def scaled_anew_by_size(
    layer: Layer, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " entries"], Float[np.ndarray, " entries"]]:
    """Like `scaled_anew` in place, but a residual goes only where a weight of about the same size is expected.

    What is expected is (a b)_p. So it does not matter if small products have other residuals than large ones, as where
    weights of dead units are a floor of noise: then r = noise / (a b) is huge for two dead units, and would make a huge
    weight of any between two live ones.

    Returns:
        Which entry came to each position, and its new size.
    """
    return _scaled_with(scale_fit(layer), layer, layer, rng, order_among_alike)


def scale_fit(layer: Layer) -> LayerScales:
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
    if layer not in _scales_of_layer:
        noise = fit_noise(layer)
        by_shape = _fitted_by_shape(layer, noise)
        _scales_of_layer[layer] = by_shape if _gives_its_total(layer, by_shape) else _fitted_by_mean(layer, noise)
    return _scales_of_layer[layer]


def _any_order(expected: Float[np.ndarray, " entries"], rng: np.random.Generator) -> Int[np.ndarray, " entries"]:
    return random_order(len(expected), rng)


def _scaled_with(
    scales: LayerScales, layer: Layer, positioned: Layer, rng: np.random.Generator, order: Order = _any_order
) -> tuple[Int[np.ndarray, " entries"], Float[np.ndarray, " entries"]]:
    drawn = scales.draw(rng)
    before = products(layer, drawn)
    after = before if positioned is layer else products(positioned, drawn)
    origins = order(before, rng)
    sizes = np.take(layer.sizes / before, origins) * after
    return origins, sizes if layer.precision == layer.sizes.dtype else np.clip(sizes, SMALLEST, LARGEST)


def _fitted_by_shape(layer: Layer, noise: FitNoise) -> LayerScales:
    """Steps 1 to 3 of `scale_fit`."""
    logs = np.log(layer.sizes)
    log_scales = least_squares_log_scales(layer, logs)
    residuals = (logs - sums(layer, log_scales)) / np.sqrt(1 - np.minimum(noise.leverage, 0.9))
    fit = None
    for index in range(N_ROUNDS if layer.n_entries <= LARGE else 1):
        shape = fitted_shape(residuals)
        if shape is None:
            break
        log_scales = most_likely_log_scales(layer, logs, log_scales, shape)
        fit = posterior_of_layer(layer, log_scales, noise, 1 / shape.information)
        if layer.n_entries <= LARGE:
            rows, columns = fit.draw(numbered(0, "residuals of a fit", index))
            residuals = logs - sums(layer, (np.log(rows), np.log(columns)))
    return posterior_of_layer(layer, log_scales, noise, 0.0) if fit is None else fit


def _gives_its_total(layer: Layer, scales: LayerScales) -> bool:
    """Are layers drawn with these scales as large as the layer itself?"""
    n_draws = N_CHECKED if layer.n_entries <= LARGE else N_CHECKED // 3
    totals = []
    for index in range(n_draws):
        _, sizes = _scaled_with(scales, layer, layer, numbered(0, "check of a fit", index))
        totals.append(np.log(sizes.sum(dtype=np.float64)))
    own = np.log(layer.sizes.sum(dtype=np.float64))
    return bool(abs(np.mean(totals) - own) <= LIMIT * max(float(np.std(totals)), LEAST_SPREAD))


def _fitted_by_mean(layer: Layer, noise: FitNoise) -> LayerScales:
    """Step 5 of `scale_fit`."""
    a, b = mean_scales(layer)
    logs = np.log(layer.sizes / products(layer, (a, b)))
    middle = logs.mean(dtype=np.float64)
    residuals = np.exp((logs - middle) / np.sqrt(1 - np.minimum(noise.leverage, 0.8)))
    mean = float(residuals.mean(dtype=np.float64))
    variance = float(residuals.var(dtype=np.float64)) / mean**2
    return posterior_of_layer(layer, (np.log(a), np.log(b)), noise, variance)
