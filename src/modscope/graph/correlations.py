"""How strongly do the values of units go together? Squared correlations of all pairs, on any device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.graph.strongest import strongest_edges
from modscope.graph.unit_graph import Block
from modscope.progress import track

Correlation: TypeAlias = Literal["spearman", "pearson", "kendall"]

SPARSE_ABOVE = 20_000  # units; beyond, only the strongest edges of each unit are kept
COLUMNS_AT_ONCE = 512
ROUNDING = 1e-6  # of its largest value: a unit that changes less does not change, its products are rounded differently

# (columns of some units, columns of others) -> squared correlations, one row for each of the first
Multiply: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def squared_correlations(
    units: Int[np.ndarray, " read"],
    values: Float[Tensor, "examples read"],
    group_of: Int[np.ndarray, " units"],
    group_names: Sequence[str],
    correlation: Correlation,
) -> list[Block]:
    """Squared correlations of the columns of `values`, a block for each two groups; constant columns have no edges.

    `values` are overwritten (by their ranks), so that they are in memory once.
    """
    low, high = torch.aminmax(values, dim=0)
    alive = torch.nonzero(high - low > ROUNDING * torch.maximum(high.abs(), low.abs())).flatten()
    multiply = _multiplied(values, correlation)
    if len(alive) > SPARSE_ABOVE:
        return [_sparse_block(units[alive.cpu().numpy()], _columns(values, alive), multiply)]
    groups = torch.from_numpy(group_of[units]).to(values.device)[alive]
    places = [alive[groups == group] for group in range(len(group_names))]
    pairs = [(a, b) for a in range(len(places)) for b in range(a, len(places)) if len(places[a]) and len(places[b])]
    return [
        _dense_block(units, values, (places[a], places[b]), multiply, f"{group_names[a]} ~ {group_names[b]}")
        for a, b in track(pairs, "correlating activations")
    ]


def correlation_blocks(
    units: Int[np.ndarray, " read"],
    values: Float[np.ndarray, "read examples"],
    group_of: Int[np.ndarray, " units"],
    group_names: Sequence[str],
    correlation: Correlation,
) -> list[Block]:
    """The same from an array with a row for each unit, which stays as it is."""
    columns = torch.from_numpy(np.array(values, dtype=np.float32).T)
    return squared_correlations(units, columns, group_of, group_names, correlation)


def ranks(rows: Float[Tensor, "units examples"]) -> Float[Tensor, "units examples"]:
    """Rank of each value within its row (from 0, float32); equal values share the mean of their ranks."""
    ordered, order = torch.sort(rows, dim=1)
    starts = torch.ones(rows.shape, dtype=torch.bool, device=rows.device)
    torch.ne(ordered[:, 1:], ordered[:, :-1], out=starts[:, 1:])
    flat = torch.nonzero(starts.view(-1)).view(-1)  # a row starts a run of its own
    lengths = torch.diff(flat, append=flat.new_tensor([rows.numel()]))
    means = (flat % rows.shape[1] + (lengths - 1) / 2).float()
    each = torch.repeat_interleave(means, lengths, output_size=rows.numel()).view(rows.shape)
    return torch.empty_like(each).scatter_(1, order, each)


def _multiplied(values: Float[Tensor, "examples read"], correlation: Correlation) -> Multiply:
    """Prepares the values in place; gives what multiplies two sets of their columns."""
    if correlation == "kendall":
        return _squared_taus
    for start in range(0, values.shape[1], COLUMNS_AT_ONCE):
        some = values[:, start : start + COLUMNS_AT_ONCE]
        rows = some.T.contiguous()
        rows = (ranks(rows) if correlation == "spearman" else rows).to(_precise(values.device))
        rows -= rows.mean(dim=1, keepdim=True)
        rows /= rows.norm(dim=1, keepdim=True).clamp_(min=torch.finfo(rows.dtype).tiny)
        some.copy_(rows.T)
    return _squared_products


def _precise(device: torch.device) -> torch.dtype:
    """For sums over examples; Apple's processors have nothing beyond float32."""
    return torch.float32 if device.type == "mps" else torch.float64


def _squared_products(
    first: Float[Tensor, "examples first"], second: Float[Tensor, "examples second"]
) -> Float[Tensor, "first second"]:
    """Squared inner products of columns of length one."""
    # numpy's library multiplies a third faster than torch's on some processors, and a matrix by itself twice as fast
    is_here = first.device.type == "cpu"
    product = torch.from_numpy(first.numpy().T @ second.numpy()) if is_here else first.T @ second
    return product.square_().clamp_(max=1)


def _squared_taus(
    first: Float[Tensor, "examples first"], second: Float[Tensor, "examples second"]
) -> Float[Tensor, "first second"]:
    """Squares of Kendall's tau-b: the correlation of the signs of all differences between two examples."""
    total = torch.zeros(first.shape[1], second.shape[1], dtype=_precise(first.device), device=first.device)
    n_first, n_second = (total.new_zeros(part.shape[1]) for part in (first, second))  # pairs of different values
    for example in range(len(first) - 1):
        signs = [torch.sign(part[example + 1 :] - part[example]) for part in (first, second)]
        total += signs[0].T @ signs[1]
        n_first += signs[0].abs().sum(dim=0)
        n_second += signs[1].abs().sum(dim=0)
    return (total / torch.sqrt(torch.outer(n_first, n_second))).square_().clamp_(max=1).float()


def _dense_block(
    units: Int[np.ndarray, " read"],
    values: Float[Tensor, "examples read"],
    places: tuple[Tensor, Tensor],
    multiply: Multiply,
    name: str,
) -> Block:
    """The edges between two groups, the first one's units as sources."""
    is_same = places[0] is places[1]
    first = _columns(values, places[0])
    second = first if is_same else _columns(values, places[1])
    sizes = multiply(second, first)
    if is_same:
        sizes.triu_(1)
    sources, targets = (units[place.cpu().numpy()] for place in places)
    return Block(sources, targets, sizes.cpu().numpy(), name)


def _sparse_block(
    units: Int[np.ndarray, " alive"], values: Float[Tensor, "examples alive"], multiply: Multiply
) -> Block:
    n_units = len(units)
    low, high, sizes = strongest_edges(values, multiply)
    entries = sp.coo_array((sizes, (high, low)), shape=(n_units, n_units))
    return Block(units, units, entries.tocsr(), "activations")


def _columns(values: Float[Tensor, "examples read"], places: Int[Tensor, " some"]) -> Float[Tensor, "examples some"]:
    """Some columns; those that lie side by side are not copied."""
    first, last = int(places[0]), int(places[-1])
    if last - first + 1 == len(places):
        return values[:, first : last + 1]
    return values[:, places]
