"""Which graph do the activations of a network make?"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int
from torch import nn

from modscope.errors import GraphError
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.graph.unit_values import Moment, Reduction, unit_values
from modscope.progress import track
from modscope.wiring.wiring import Wiring

Correlation: TypeAlias = Literal["spearman", "pearson", "kendall"]
Rows: TypeAlias = Float[np.ndarray, "units examples"]

SPARSE_ABOVE = 20_000  # units; beyond, only the strongest edges of each unit are kept
N_STRONGEST = 64
ROWS_AT_ONCE = 512


def activation_graph(
    model: nn.Module,
    wiring: Wiring,
    batches: Iterable[Any],
    *,
    correlation: Correlation = "spearman",
    max_examples: int = 5000,
    moment: Moment = "after",
    reduction: Reduction = "mean",
    inputs: bool = False,
    outputs: bool = False,
) -> UnitGraph:
    """The graph whose edge between two units is the squared correlation of their activations.

    One block for each two unit groups, named "first ~ second". A unit whose value never changes (a dead one) has no
    edges. Above 20,000 units each keeps the 64 strongest edges of its own and those that others keep to it.

    Args:
        model: The network; it is run in eval mode and left as it was.
        wiring: What `read_wiring` found in it.
        batches: `(inputs, targets)`, dicts that the model takes as keywords, or tensors.
        correlation: "spearman" (the papers'; of ranks, ties averaged), "pearson", or "kendall" (tau-b; slow: its time
            grows with the square of the number of examples).
        max_examples: Reading stops after so many examples (tokens, where every layer sees the same tokens).
        moment: "after" the nonlinearity: where the unit is read; "before": where its layer writes it (streams are
            taken where they are read).
        reduction: What stands for a channel's map: its "mean", or as the papers' programs do, its largest singular
            value ("spectral", Filan et al.) or largest column sum of absolute values ("max_column", Hod et al.).
        inputs: Take in input units, where a layer reads them.
        outputs: Take in output units.

    Raises:
        GraphError: If an option is unknown, there are fewer than three examples, or the activations cannot be read.

    Source: Filan et al. 2021 and Hod et al. 2021 (their programs); ranks and tau-b: Kendall 1945.
    """
    _check_options(correlation, moment, reduction)
    left_out = {kind for kind, is_kept in (("input", inputs), ("output", outputs)) if not is_kept}
    is_wanted = np.array([group.kind not in left_out for group in wiring.groups], dtype=bool)[wiring.group_of]
    units, values = unit_values(
        model, wiring, batches, wanted=is_wanted, moment=moment, reduction=reduction, max_examples=max_examples
    )
    if values.shape[1] < 3:
        raise GraphError(f"correlations need at least 3 examples, got {values.shape[1]}; give more batches")
    _warn_of_unread(np.setdiff1d(np.flatnonzero(is_wanted), units), wiring)
    blocks = correlation_blocks(units, values, wiring.group_of, [group.name for group in wiring.groups], correlation)
    return UnitGraph(tuple(blocks), wiring.group_of, tuple(group.name for group in wiring.groups))


def correlation_blocks(
    units: Int[np.ndarray, " read"],
    values: Float[np.ndarray, "read examples"],
    group_of: Int[np.ndarray, " units"],
    group_names: list[str],
    correlation: Correlation,
) -> list[Block]:
    """Squared correlations of the rows of `values`, a block for each two groups; constant rows have no edges."""
    is_alive = np.ptp(values, axis=1) > 0
    units, values = units[is_alive], values[is_alive]
    multiply = _taus(values) if correlation == "kendall" else _products(values, uses_ranks=correlation == "spearman")
    if len(units) > SPARSE_ABOVE:
        return [_strongest(units, multiply)]
    places = [np.flatnonzero(group_of[units] == group) for group in range(len(group_names))]
    pairs = [(a, b) for a in range(len(places)) for b in range(a, len(places)) if len(places[a]) and len(places[b])]
    blocks = []
    for a, b in track(pairs, "correlating activations"):
        sizes = _squared(multiply(places[b], places[a]))  # targets: the later group
        name = f"{group_names[a]} ~ {group_names[b]}"
        blocks.append(Block(units[places[a]], units[places[b]], np.triu(sizes, 1) if a == b else sizes, name))
    return blocks


def ranks(values: Rows) -> Rows:
    """Rank of each value within its row (from 0, float32); equal values share the mean of their ranks."""
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    starts = np.ones(values.shape, dtype=bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    flat = np.flatnonzero(starts)  # a row starts a run of its own
    lengths = np.diff(flat, append=values.size)
    means = (flat % values.shape[1] + (lengths - 1) / 2).astype(np.float32)
    ranked = np.empty(values.shape, dtype=np.float32)
    np.put_along_axis(ranked, order, np.repeat(means, lengths).reshape(values.shape), axis=1)
    return ranked


Multiply: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _products(values: Rows, *, uses_ranks: bool) -> Multiply:
    """Correlations of two sets of rows, as one matrix product of centred rows of length one."""
    unit_rows = np.empty(values.shape, dtype=np.float32)
    for start in range(0, len(values), ROWS_AT_ONCE):
        some = slice(start, start + ROWS_AT_ONCE)
        rows = (ranks(values[some]) if uses_ranks else values[some]).astype(np.float64)
        rows -= rows.mean(axis=1, keepdims=True)
        unit_rows[some] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return lambda first, second: unit_rows[first] @ unit_rows[second].T


def _taus(values: Rows) -> Multiply:
    """Kendall's tau-b: the correlation of the signs of all differences between two examples."""

    def concordance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        total = np.zeros((len(first), len(second)))
        for example in range(values.shape[1] - 1):
            a, b = (np.sign(values[rows, example + 1 :] - values[rows, example, None]) for rows in (first, second))
            total += a @ b.T
        return total

    n_rows, n_examples = values.shape
    n_pairs = np.zeros(n_rows)  # of different values
    for example in range(n_examples - 1):
        n_pairs += np.count_nonzero(values[:, example + 1 :] != values[:, example, None], axis=1)
    return lambda first, second: concordance(first, second) / np.sqrt(np.outer(n_pairs[first], n_pairs[second]))


def _squared(correlations: np.ndarray) -> Float[np.ndarray, "targets sources"]:
    squares: np.ndarray = np.square(correlations).astype(np.float32, copy=False)
    np.minimum(squares, 1, out=squares)
    return squares


def _strongest(units: Int[np.ndarray, " read"], multiply: Multiply) -> Block:
    """One sparse block: the edges that at least one of their two units counts among its strongest."""
    n_units = len(units)
    rows, columns, sizes = (np.concatenate(several) for several in zip(*_top_edges(n_units, multiply), strict=True))
    low, high = np.minimum(rows, columns), np.maximum(rows, columns)
    _, first = np.unique(low * n_units + high, return_index=True)  # an edge that both keep counts once
    entries = (sizes[first], (high[first], low[first]))
    return Block(units, units, sp.coo_array(entries, shape=(n_units, n_units)).tocsr(), "activations")


def _top_edges(n_units: int, multiply: Multiply) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    everyone = np.arange(n_units)
    n_kept = min(N_STRONGEST, n_units - 1)
    for start in track(range(0, n_units, ROWS_AT_ONCE), "correlating activations"):
        some = everyone[start : start + ROWS_AT_ONCE]
        sizes = _squared(multiply(some, everyone))
        sizes[np.arange(len(some)), some] = -1  # not itself
        kept = np.argpartition(sizes, -n_kept, axis=1)[:, -n_kept:]
        yield np.repeat(some, n_kept), kept.ravel(), np.take_along_axis(sizes, kept, axis=1).ravel()


def _check_options(correlation: str, moment: str, reduction: str) -> None:
    given = (("correlation", correlation, Correlation), ("moment", moment, Moment), ("reduction", reduction, Reduction))
    for name, value, allowed in given:
        if value not in get_args(allowed):
            raise GraphError(f"{name} must be one of {', '.join(get_args(allowed))}; got {value!r}")


def _warn_of_unread(units: Int[np.ndarray, " unread"], wiring: Wiring) -> None:
    if len(units):
        names = sorted({wiring.groups[group].name for group in wiring.group_of[units]})
        warnings.warn(
            f"{len(units)} units are read by no layer that is a module of its own, and stay without edges; "
            f"groups: {', '.join(names)}",
            stacklevel=3,
        )
