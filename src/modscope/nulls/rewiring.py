"""Which units could be joined instead, if every unit keeps its number of connections?"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from modscope.errors import StatisticsError
from modscope.nulls.layers import Layer

N_ROUNDS = 20  # in each of them every row trades once; see docs/null-models.md for how fast they mix


def rewired_positions(
    layer: Layer, rng: np.random.Generator, *, n_rounds: int = N_ROUNDS
) -> Int[np.ndarray, " entries"] | None:
    """Positions with the same number of entries in each row and each column, otherwise at random.

    Curveball trades: two rows put the columns that only one of them has into a pot, and draw as many as they gave.
    In each round the rows are paired at random, and all pairs trade at once. None (= as they are) where every row is
    joined to every column, since then there is only one such layer.

    Raises:
        StatisticsError: If the layer has several positions for one row and column, or none (grouped convolutions,
            gates): there the numbers of connections cannot be kept by trades of columns.

    Source: Strona et al. 2014; uniform in the limit by Carstens 2015.
    """
    if layer.is_full:
        return None
    if not layer.is_grid:
        raise StatisticsError(
            f"the connections of '{layer.name}' are not a grid of targets x sources; give its weight_graph instead, "
            "or keep_degrees for a graph of activations"
        )
    n_rows, n_columns = layer.shape
    rows, columns = layer.rows, layer.columns
    if n_rows > n_columns:  # trades between the fewer, longer lists mix as well and cost less
        return _traded(columns, rows, n_columns, n_rows, n_rounds, rng, transposed=True)
    return _traded(rows, columns, n_rows, n_columns, n_rounds, rng, transposed=False)


def _traded(
    rows: Int[np.ndarray, " entries"],
    columns: Int[np.ndarray, " entries"],
    n_rows: int,
    n_columns: int,
    n_rounds: int,
    rng: np.random.Generator,
    *,
    transposed: bool,
) -> Int[np.ndarray, " entries"]:
    for _ in range(n_rounds):
        rows, columns = _one_round(rows, columns, n_rows, n_columns, rng)
    positions: np.ndarray = columns * n_rows + rows if transposed else rows * n_columns + columns
    return positions


def _one_round(
    rows: Int[np.ndarray, " entries"],
    columns: Int[np.ndarray, " entries"],
    n_rows: int,
    n_columns: int,
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " entries"], Int[np.ndarray, " entries"]]:
    """Every row trades with one other row (one row rests if their number is odd)."""
    place = rng.permutation(n_rows)  # rows with places 2 p and 2 p + 1 are pair p
    pair, is_second = place[rows] // 2, place[rows] % 2
    held = pair * n_columns + columns
    order = np.argsort(held, kind="stable")
    rows, columns, pair, is_second, held = (array[order] for array in (rows, columns, pair, is_second, held))
    is_twin = np.zeros(len(held), dtype=bool)  # both rows of the pair hold this column: not for trade
    same = held[1:] == held[:-1]
    is_twin[1:] |= same
    is_twin[:-1] |= same
    pot = np.flatnonzero(~is_twin)
    # Within each pair the pot is dealt anew: the same owners, in random order.
    dealt = pot[np.lexsort((rng.random(len(pot)), pair[pot]))]
    rows = rows.copy()
    rows[pot] = rows[dealt]
    return rows, columns
