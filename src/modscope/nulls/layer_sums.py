"""How do numbers of rows and columns meet in a layer's entries, and what do entries add up to?"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float

from modscope.nulls.layers import Layer

Sides: TypeAlias = tuple[
    Float[np.ndarray, " rows"], Float[np.ndarray, " columns"]
]  # one number per row, and per column


def products(layer: Layer, scales: Sides) -> Float[np.ndarray, " entries"]:
    """a_i b_j of each entry."""
    a, b = (side.astype(layer.precision) for side in scales)
    if layer.is_full:
        grid: np.ndarray = np.multiply.outer(a, b)
        return grid.reshape(-1)
    listed: np.ndarray = a[layer.rows] * b[layer.columns]
    return listed


def sums(layer: Layer, terms: Sides) -> Float[np.ndarray, " entries"]:
    """a_i + b_j of each entry."""
    a, b = (side.astype(layer.sizes.dtype) for side in terms)
    if layer.is_full:
        grid: np.ndarray = np.add.outer(a, b)
        return grid.reshape(-1)
    listed: np.ndarray = a[layer.rows] + b[layer.columns]
    return listed


def row_sums(layer: Layer, values: Float[np.ndarray, " entries"]) -> Float[np.ndarray, " rows"]:
    """Sum of the values over the entries of each row."""
    if layer.is_full:
        full: np.ndarray = values.reshape(layer.shape).sum(axis=1, dtype=np.float64)
        return full
    return np.bincount(layer.rows, values, layer.shape[0])


def column_sums(layer: Layer, values: Float[np.ndarray, " entries"]) -> Float[np.ndarray, " columns"]:
    """Sum of the values over the entries of each column."""
    if layer.is_full:
        full: np.ndarray = values.reshape(layer.shape).sum(axis=0, dtype=np.float64)
        return full
    return np.bincount(layer.columns, values, layer.shape[1])


def entry_counts(layer: Layer) -> Sides:
    """How many entries each row has, and each column."""
    n_rows, n_columns = layer.shape
    if layer.is_full:
        return np.full(n_rows, float(n_columns)), np.full(n_columns, float(n_rows))
    rows, columns = np.bincount(layer.rows, minlength=n_rows), np.bincount(layer.columns, minlength=n_columns)
    return rows.astype(np.float64), columns.astype(np.float64)
