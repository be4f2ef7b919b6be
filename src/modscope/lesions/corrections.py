"""How is a product with a weight corrected when only some of the columns that it sums over change?"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

aten = torch.ops.aten


class Correction(Protocol):
    """Corrects a product by some of the columns that it sums over."""

    def __call__(self, product: Tensor, chosen: Tensor) -> Tensor:
        """The product without what the chosen columns say, and with what is said instead."""
        ...


class MatrixCorrection:
    """Of a matrix times a weight."""

    def __init__(self, operand: Tensor, weight: Tensor, bias: Tensor | float, fill: Tensor) -> None:
        self._columns = (operand - fill).t().contiguous()  # one row per column of the operand
        self._rows = weight.contiguous()
        self._bias = bias
        is_weight = self._rows != 0
        # Where nothing is left to read the answer is exactly the bias; a rounding error could decide a tie.
        self._is_weight = None if fill.ndim or bool(is_weight.all()) else is_weight.float()
        self._n_weights = is_weight.sum(0)

    def __call__(self, product: Tensor, chosen: Tensor) -> Tensor:
        """The product, corrected."""
        columns, rows = self._columns.index_select(0, chosen), self._rows.index_select(0, chosen)
        corrected = torch.addmm(product, columns.t(), rows, alpha=-1)
        if self._is_weight is None:
            return corrected
        is_unread = self._is_weight.index_select(0, chosen).sum(0) >= self._n_weights
        return torch.where(is_unread, self._bias, corrected) if bool(is_unread.any()) else corrected


class ConvolutionCorrection:
    """Of a convolution without groups."""

    def __init__(self, args: tuple[Any, ...], fill: Tensor) -> None:
        self._args = args
        self._fill = fill

    def __call__(self, product: Tensor, chosen: Tensor) -> Tensor:
        """The product, corrected."""
        operand, kernel, _, *options = self._args
        said = operand.index_select(1, chosen)
        if self._fill.ndim:
            said = said - self._fill.expand(operand.shape).index_select(1, chosen)
        without: Tensor = aten.convolution.default(said, kernel.index_select(1, chosen), None, *options)
        return product - without


def can_correct(func: Any, args: tuple[Any, ...], operand: int) -> bool:
    """Whether there is a correction for this operation, if units stand along the columns of argument `operand`."""
    if func is aten.convolution.default:
        is_transposed, n_groups = args[6], args[8]
        return not is_transposed and n_groups == 1
    return {aten.addmm.default: 1, aten.mm.default: 0}.get(func) == operand


def correction_of(func: Any, args: tuple[Any, ...], fill: Tensor) -> Correction:
    """How the operation with these arguments is corrected; `fill` is what is read instead."""
    if func is aten.convolution.default:
        return ConvolutionCorrection(args, fill)
    if func is aten.addmm.default:
        return MatrixCorrection(args[1], args[2], args[0], fill)
    return MatrixCorrection(args[0], args[1], 0.0, fill)
