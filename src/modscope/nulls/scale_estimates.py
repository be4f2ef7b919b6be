"""Which scales of a layer's units explain its weights best?

Every estimate takes the sizes as w_ij = a_i b_j r_ij on the entries that exist; only the products of a and b are
determined, their two levels are not.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float

from modscope.nulls.layer_sums import Sides, column_sums, entry_counts, row_sums, sums
from modscope.nulls.layers import Layer
from modscope.nulls.residual_shape import ResidualShape

N_SWEEPS = 200  # of an estimate, at most
CLOSE = 1e-3  # change of a log scale at which an estimate ends
LONGEST_STEP = 1.0  # of a log scale


def least_squares_log_scales(layer: Layer, logs: Float[np.ndarray, " entries"]) -> Sides:
    """Log scales a, b at which the sum of (log w_ij - a_i - b_j)^2 is least: the start of a better estimate.

    Args:
        layer: Says where the entries stand.
        logs: log w_ij of its entries.
    """
    n_row, n_column = entry_counts(layer)
    a, b = np.zeros(len(n_row)), np.zeros(len(n_column))
    for _ in range(N_SWEEPS):
        step = row_sums(layer, logs - sums(layer, (a, b))) / np.maximum(n_row, 1)
        a = a + step
        b = b + column_sums(layer, logs - sums(layer, (a, b))) / np.maximum(n_column, 1)
        if layer.is_full or np.abs(step).max(initial=0.0) < CLOSE:  # one sweep is all where every entry is there
            break
    return a, b


def most_likely_log_scales(
    layer: Layer, logs: Float[np.ndarray, " entries"], start: Sides, shape: ResidualShape
) -> Sides:
    """Log scales at which the scores of log r_ij add up to zero over every row and column: maximum likelihood.

    Args:
        layer: Says where the entries stand.
        logs: log w_ij of its entries.
        start: Log scales to start from.
        shape: Density of log r_ij.
    """
    (a, b), (n_row, n_column) = start, entry_counts(layer)
    for _ in range(N_SWEEPS):
        residuals = logs - sums(layer, (a, b))
        row_step = _newton_step(
            row_sums(layer, shape.score(residuals)), row_sums(layer, shape.slope(residuals)), n_row, shape
        )
        a = a + row_step
        residuals = logs - sums(layer, (a, b))
        column_step = _newton_step(
            column_sums(layer, shape.score(residuals)), column_sums(layer, shape.slope(residuals)), n_column, shape
        )
        b = b + column_step
        if max(np.abs(row_step).max(initial=0.0), np.abs(column_step).max(initial=0.0)) < CLOSE:
            break
    return a, b


def mean_scales(layer: Layer) -> Sides:
    """Scales a, b at which w_ij / (a_i b_j) has mean 1 over the entries of every row and column; 1 for an empty one."""
    matrix, (n_row, n_column) = layer.matrix, entry_counts(layer)
    transposed = matrix.T if isinstance(matrix, np.ndarray) else matrix.T.tocsr()
    a, b = np.ones(len(n_row)), np.ones(len(n_column))
    for _ in range(N_SWEEPS):
        before = a
        a = _means_without(matrix, b, n_row)
        b = _means_without(transposed, a, n_column)
        if np.abs(a / before - 1).max(initial=0.0) < 1e-2 * CLOSE:
            break
    level = np.exp(np.log(b).mean())
    return a * level, b / level


def _newton_step(
    pull: Float[np.ndarray, " units"],
    slope: Float[np.ndarray, " units"],
    counts: Float[np.ndarray, " units"],
    shape: ResidualShape,
) -> Float[np.ndarray, " units"]:
    """What to add to the log scales of one side, given the sums of scores and of their slopes over each unit."""
    # never less than its mean: in the far tails the slope is next to nothing, and Newton's step too long
    steepest = np.maximum(slope, np.maximum(counts, 1) * shape.information)
    step: np.ndarray = np.clip(pull / steepest, -LONGEST_STEP, LONGEST_STEP)
    return step


def _means_without(
    matrix: Float[np.ndarray, "rows columns"] | sp.csr_array,
    scales: Float[np.ndarray, " columns"],
    counts: Float[np.ndarray, " rows"],
) -> Float[np.ndarray, " rows"]:
    """Mean of w_ij / b_j over the entries of each row; 1 for an empty one."""
    totals = (matrix @ (1 / scales).astype(matrix.dtype)).astype(np.float64)
    means: np.ndarray = np.divide(totals, counts, out=np.ones(len(counts)), where=counts > 0)
    return means
