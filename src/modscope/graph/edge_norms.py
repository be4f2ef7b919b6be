"""How large are the weights that join two units?"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.errors import GraphError
from modscope.wiring.wiring import Connection

EdgeNorm: TypeAlias = Literal["l1", "l2", "official_l1", "official_l2"]
EDGE_NORMS: tuple[str, ...] = get_args(EdgeNorm)
Sizes: TypeAlias = Float[np.ndarray, "targets sources"] | sp.csr_array

ENTRIES_AT_ONCE = 1 << 24  # weights turned into sizes at a time: 64 MB
DENSE_SHARE = 0.25  # a block with more of its pairs joined than this is kept dense


def connection_sizes(
    connection: Connection, *, edge_norm: EdgeNorm, fold_norms: bool
) -> tuple[Int[np.ndarray, " targets"], Int[np.ndarray, " sources"], Sizes]:
    """Target units, source units, and the size (float32) of the weights between each two of them.

    Raises:
        GraphError: If a weight is NaN or infinite, or has no numbers at all.
    """
    weight = connection.weight.detach()
    if not weight.is_floating_point():
        raise GraphError(f"weights of '{connection.parameter}' are {weight.dtype}; edges need floating point")
    if weight.is_meta:
        raise GraphError(
            f"weights of '{connection.parameter}' are on the meta device, which keeps no numbers; load them, and read "
            "the wiring again"
        )
    targets = _of_rank(connection.targets, weight.ndim)
    sources = _of_rank(connection.sources, weight.ndim)
    scales = [connection.source_scale, connection.target_scale] if fold_norms else []
    factors = [_of_rank(np.abs(np.asarray(scale)), weight.ndim) for scale in scales if scale is not None]
    along_targets = {axis for axis in range(weight.ndim) if targets.shape[axis] > 1}
    along_sources = {axis for axis in range(weight.ndim) if sources.shape[axis] > 1}
    measure = _measure_grouped if along_targets & along_sources else _measure_dense
    rows, columns, sizes = measure(weight, targets, sources, factors, edge_norm)
    if not np.isfinite(sizes.data if sp.issparse(sizes) else sizes).all():
        raise GraphError(
            f"weights of '{connection.parameter}' (or the norm folded into them) hold NaN or infinite values; "
            "repair or retrain the model first"
        )
    return rows, columns, sizes


def kernel_norm(
    sizes: Float[np.ndarray, "targets sources *kernel"], norm: EdgeNorm
) -> Float[np.ndarray, "targets sources"]:
    """Norm of each kernel of absolute weights; a kernel of more than two axes is read as (first, the rest)."""
    if sizes.ndim == 2:
        return sizes
    flat = sizes.reshape(*sizes.shape[:2], -1)
    kernels = sizes.reshape(*sizes.shape[:3], -1)  # (targets, sources, height, width)
    norms: np.ndarray
    if norm == "l1":
        norms = flat.sum(axis=2)
    elif norm == "official_l1":
        norms = kernels.sum(axis=2).max(axis=2, initial=0)
    elif norm == "l2" or min(kernels.shape[2:]) == 1:
        norms = np.sqrt(np.square(flat).sum(axis=2))
    else:
        norms = np.linalg.norm(kernels, ord=2, axis=(2, 3))
    return norms


def _measure_dense(
    weight: Tensor,
    targets: Int[np.ndarray, "..."],
    sources: Int[np.ndarray, "..."],
    factors: list[Float[np.ndarray, "..."]],
    norm: EdgeNorm,
) -> tuple[Int[np.ndarray, " targets"], Int[np.ndarray, " sources"], Sizes]:
    """Sizes of a connection whose target and source ids lie along different axes: a matrix (of kernels)."""
    along_targets = [axis for axis in range(weight.ndim) if targets.shape[axis] > 1]
    along_sources = [axis for axis in range(weight.ndim) if sources.shape[axis] > 1]
    kernel = [axis for axis in range(weight.ndim) if axis not in along_targets + along_sources]
    order = along_targets + along_sources + kernel
    n_rows, n_columns = targets.size, sources.size
    kernel_shape = _kernel_shape(weight, kernel)
    matrix = weight.permute(order)
    scales = [np.transpose(factor, order) for factor in factors]
    rows, columns = _Merged(targets.ravel()), _Merged(sources.ravel())
    power = 2 if norm == "l2" else 1
    total = np.zeros((rows.n_units, columns.n_units), dtype=np.float32)
    step = max(1, ENTRIES_AT_ONCE * max(1, matrix.shape[0]) // max(1, weight.numel())) if along_targets else 1
    per_row = n_rows // matrix.shape[0] if along_targets else 1
    for start in range(0, matrix.shape[0] if along_targets else 1, step):
        part = _absolute(matrix, scales, slice(start, start + step) if along_targets else slice(None))
        sizes = kernel_norm(part.reshape(-1, n_columns, *kernel_shape), norm)
        sizes = columns.add_columns(sizes**power if power > 1 else sizes)
        rows.add_rows(total, sizes, start * per_row)
    return rows.units, columns.units, np.sqrt(total) if power > 1 else total


def _absolute(matrix: Tensor, scales: list[Float[np.ndarray, "..."]], part: slice) -> Float[np.ndarray, "..."]:
    sizes: np.ndarray = matrix[part].to(device="cpu", dtype=torch.float32).abs().numpy()
    for scale in scales:
        factor = scale[part] if scale.shape[0] > 1 else scale
        sizes = sizes * factor.astype(np.float32)
    return sizes


def _measure_grouped(
    weight: Tensor,
    targets: Int[np.ndarray, "..."],
    sources: Int[np.ndarray, "..."],
    factors: list[Float[np.ndarray, "..."]],
    norm: EdgeNorm,
) -> tuple[Int[np.ndarray, " targets"], Int[np.ndarray, " sources"], Sizes]:
    """Sizes of a connection where an axis carries both ids, as in a grouped convolution: few pairs are joined."""
    axes = range(weight.ndim)
    carrying = [axis for axis in axes if targets.shape[axis] > 1 or sources.shape[axis] > 1]
    kernel = [axis for axis in axes if axis not in carrying]
    order = carrying + kernel
    part = _absolute(weight.permute(order), [np.transpose(factor, order) for factor in factors], slice(None))
    kernel_shape = _kernel_shape(weight, kernel)
    sizes = kernel_norm(part.reshape(-1, 1, *kernel_shape), norm)[:, 0]
    shape = [weight.shape[axis] for axis in carrying]
    rows, columns = (np.broadcast_to(np.transpose(ids, order).reshape(
        [ids.shape[axis] for axis in carrying]), shape).ravel() for ids in (targets, sources))  # fmt: skip
    joined = (rows >= 0) & (columns >= 0)
    row_units, row = np.unique(rows[joined], return_inverse=True)
    column_units, column = np.unique(columns[joined], return_inverse=True)
    entries = sizes[joined] ** 2 if norm == "l2" else sizes[joined]
    total = sp.coo_array((entries, (row, column)), shape=(len(row_units), len(column_units))).tocsr()
    if norm == "l2":
        total.data = np.sqrt(total.data)
    is_dense = total.nnz > DENSE_SHARE * len(row_units) * len(column_units)
    return row_units, column_units, total.toarray() if is_dense else total


class _Merged:
    """The units of one axis, each once; adds up the rows or columns that belong to the same unit.

    A flattened image has one column per position of a channel, packed gates one row per gate of a unit.
    """

    def __init__(self, ids: Int[np.ndarray, " entries"]) -> None:
        self.entries = np.flatnonzero(ids >= 0)
        self.units, self.inverse = np.unique(ids[self.entries], return_inverse=True)
        self.n_units = len(self.units)
        self.position = np.full(len(ids), -1, dtype=np.int64)
        self.position[self.entries] = self.inverse
        self.is_identity = len(ids) == self.n_units and bool(np.all(self.inverse == np.arange(len(ids))))

    def add_columns(self, sizes: Float[np.ndarray, "rows entries"]) -> Float[np.ndarray, "rows units"]:
        """One column per unit."""
        if self.is_identity:
            return sizes
        if len(self.entries) == self.n_units:
            return sizes[:, self.entries[np.argsort(self.inverse)]]
        merged = torch.zeros(len(sizes), self.n_units)
        merged.index_add_(1, torch.from_numpy(self.inverse), torch.from_numpy(sizes[:, self.entries]))
        return merged.numpy()

    def add_rows(
        self, total: Float[np.ndarray, "units columns"], sizes: Float[np.ndarray, "entries columns"], start: int
    ) -> None:
        """Add rows `start`, `start + 1`, ... to the rows of their units in `total`."""
        positions = self.position[start : start + len(sizes)]
        if self.is_identity:
            total[start : start + len(sizes)] = sizes
            return
        kept = positions >= 0
        merged = torch.from_numpy(total)
        merged.index_add_(0, torch.from_numpy(positions[kept]), torch.from_numpy(np.ascontiguousarray(sizes[kept])))


def _kernel_shape(weight: Tensor, axes: list[int]) -> list[int]:
    """Lengths of the kernel's axes; beyond two, an axis of length one (a layer with a single channel) is dropped."""
    shape = [weight.shape[axis] for axis in axes]
    while len(shape) > 2 and 1 in shape:
        shape.remove(1)
    return shape


def _of_rank(array: np.ndarray, rank: int) -> np.ndarray:
    """`array` with leading axes of length one, as broadcasting adds them."""
    return array.reshape((1,) * (rank - array.ndim) + array.shape)
