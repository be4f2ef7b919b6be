"""Which are the strongest edges of each unit, when all pairs are too many to keep?"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.progress import track

N_STRONGEST = 64
ROWS_AT_ONCE = 512
INFINITE_BITS = 0x7F800000  # of infinity as a float32
LONG = 1.5  # so many times the edges that are kept are on the list before it is thinned out


def strongest_edges(
    values: Float[Tensor, "examples units"], multiply: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Int[np.ndarray, " edges"], Int[np.ndarray, " edges"], Float[np.ndarray, " edges"]]:
    """The edges that at least one of their two units counts among its strongest: lower unit, higher unit, size.

    Each pair is measured once, a strip of units at a time; a pair is kept for as long as it is among the strongest
    of one of its units so far. Memory grows with the number of units, not with that of pairs.

    Args:
        values: A column for each unit.
        multiply: (some columns, other columns) -> sizes of the edges between them, >= 0.
    """
    n_units = values.shape[1]
    running = _Running(n_units, min(N_STRONGEST, n_units - 1), values.device)
    for start, stop in track(_strips(n_units), "correlating activations"):
        sizes = multiply(values[:, start:stop], values[:, start:])
        sizes[:, : stop - start].triu_(1)  # each pair once
        running.offer(start, sizes)
    return running.edges()


def _strips(n_units: int) -> list[tuple[int, int]]:
    """Narrow ones first, while many edges are among the strongest so far."""
    bounds = [0]
    while bounds[-1] < n_units:
        width = ROWS_AT_ONCE if len(bounds) == 1 else max(1, min(ROWS_AT_ONCE, bounds[-1] // 4))
        bounds.append(min(bounds[-1] + width, n_units))
    return list(pairwise(bounds))


class _Running:
    """The strongest edges of each unit so far. Offers gather in a list, which is thinned out when it has grown long."""

    def __init__(self, n_units: int, n_kept: int, device: torch.device) -> None:
        self._n_units, self._n_kept = n_units, n_kept
        self._weakest = torch.zeros(n_units, device=device)  # an edge has to be larger than that
        self._owners: list[Tensor] = []
        self._others: list[Tensor] = []
        self._sizes: list[Tensor] = []
        self._n_offers = 0

    def offer(self, start: int, sizes: Float[Tensor, "some rest"]) -> None:
        """Edges from units `start`, `start + 1`, ... to themselves and all later units; zero: none."""
        if start == 0:  # nothing to beat yet: everything would be on the list
            self._take(start, *_top(sizes, self._n_kept), sizes)
            columns, rows = _top(sizes.T, self._n_kept)
            self._take(start, columns, rows, sizes.T)
            self._thin_out()
            return
        row, column = torch.nonzero(sizes > self._weakest[start : start + len(sizes), None], as_tuple=True)
        self._take(start, row, column, sizes)
        row, column = torch.nonzero(sizes > self._weakest[start:], as_tuple=True)
        self._take(start, column, row, sizes.T)
        if self._n_offers > LONG * self._n_kept * self._n_units:
            self._thin_out()

    def _take(self, start: int, owners: Tensor, others: Tensor, sizes: Float[Tensor, "owners others"]) -> None:
        self._sizes.append(sizes[owners, others])
        self._owners.append((owners + start).int())
        self._others.append((others + start).int())
        self._n_offers += len(owners)

    def _thin_out(self) -> None:
        """Keep each unit's strongest; of equal ones those that were offered first."""
        lists = (self._owners, self._others, self._sizes)
        owners, others, sizes = (torch.cat(parts) for parts in lists)
        for parts in lists:
            parts.clear()  # each offer is in memory once
        # sizes are above zero: there the bits of a float32, read as a whole number, are in the order of the numbers
        keys, order = torch.sort((owners.long() << 32) | (INFINITE_BITS - sizes.view(torch.int32)), stable=True)
        owners = (keys >> 32).int()
        del keys
        counts = torch.bincount(owners, minlength=self._n_units)
        rank = torch.arange(len(owners), device=owners.device, dtype=torch.int32)
        rank -= (torch.cumsum(counts, 0) - counts).int()[owners]
        last = rank == self._n_kept - 1
        self._weakest[owners[last]] = sizes[order[last]]
        is_kept = rank < self._n_kept
        kept = order[is_kept]
        self._owners, self._others, self._sizes = [owners[is_kept]], [others[kept]], [sizes[kept]]
        self._n_offers = len(kept)

    def edges(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each edge once, though both of its units may keep it."""
        self._thin_out()
        unit, other, sizes = (parts[0].cpu().numpy() for parts in (self._owners, self._others, self._sizes))
        low, high = np.minimum(unit, other).astype(np.int64), np.maximum(unit, other).astype(np.int64)
        first = np.unique(low * self._n_units + high, return_index=True)[1]
        return low[first], high[first], sizes[first]


def _top(sizes: Float[Tensor, "owners others"], count: int) -> tuple[Tensor, Tensor]:
    """Owner and other of the largest sizes of each owner, those above zero."""
    found, others = sizes.topk(min(count, sizes.shape[1]), dim=1)
    owners = torch.arange(len(sizes), device=sizes.device)[:, None].expand(others.shape)
    return owners[found > 0], others[found > 0]
