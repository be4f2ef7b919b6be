"""Which ids stand for one unit? Union-find over all ids given so far, with what is known of each id."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

UNMERGED = -1


class Unions:
    """Ids, joined into units as the run goes on.

    Ids are given by a writer (an input, a weight) or by a merge of two others. The columns hold one entry per id:
    its writer (-1: a merge), its depth (weights passed since the inputs), whether it is a sum over different depths
    (a residual stream), and the gain with which it went into a merge (`UNMERGED`: it did not).
    """

    def __init__(self) -> None:
        self.n_ids = 0
        self._parent = np.empty(1024, dtype=np.int64)
        self._writer = np.empty(1024, dtype=np.int64)
        self._depth = np.empty(1024, dtype=np.int64)
        self._is_stream = np.empty(1024, dtype=bool)
        self._merged_gain = np.empty(1024, dtype=np.int64)

    def new(self, count: int, *, writer: int, depth: Int[np.ndarray, "..."] | int) -> Int[np.ndarray, " count"]:
        """`count` new ids, each a unit of its own."""
        first, self.n_ids = self.n_ids, self.n_ids + count
        self._grow(self.n_ids)
        ids = np.arange(first, self.n_ids, dtype=np.int64)
        self._parent[ids] = ids
        self._writer[ids] = writer
        self._depth[ids] = depth
        self._is_stream[ids] = False
        self._merged_gain[ids] = UNMERGED
        return ids

    def find(self, ids: Int[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        """The id that stands for each id's unit; negative ids stay as they are."""
        is_id = ids >= 0
        roots = np.where(is_id, ids, 0)
        while True:
            parents = self._parent[roots] if self.n_ids else roots
            if np.array_equal(parents, roots):
                break
            roots = self._parent[parents]
        if self.n_ids:
            self._parent[ids[is_id]] = roots[is_id]
        return np.where(is_id, roots, ids)

    def union(self, left: Int[np.ndarray, " pairs"], right: Int[np.ndarray, " pairs"]) -> None:
        """Each pair is one unit from now on."""
        while True:
            left, right = self.find(left), self.find(right)
            differ = left != right
            if not differ.any():
                return
            left, right = left[differ], right[differ]
            np.minimum.at(self._parent, np.maximum(left, right), np.minimum(left, right))

    def depth(self, ids: Int[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
        """Depth of each id."""
        depths: Int[np.ndarray, "..."] = self._depth[ids]
        return depths

    def mark_stream(self, ids: Int[np.ndarray, "..."], is_stream: Bool[np.ndarray, "..."]) -> None:
        """Note which ids are sums over different depths."""
        self._is_stream[ids] |= is_stream

    def mark_merged(self, ids: Int[np.ndarray, "..."], gains: Int[np.ndarray, "..."]) -> None:
        """Note the gain with which written ids went into a merge; the first merge counts."""
        first_time = (self._writer[ids] >= 0) & (self._merged_gain[ids] == UNMERGED)
        self._merged_gain[ids[first_time]] = gains[first_time]

    @property
    def roots(self) -> Int[np.ndarray, " ids"]:
        """The id that stands for the unit of each id given so far."""
        return self.find(np.arange(self.n_ids))

    @property
    def writer(self) -> Int[np.ndarray, " ids"]:
        """Writer of each id; -1 for a merge."""
        return self._writer[: self.n_ids]

    @property
    def depths(self) -> Int[np.ndarray, " ids"]:
        """Depth of each id."""
        return self._depth[: self.n_ids]

    @property
    def is_stream(self) -> Bool[np.ndarray, " ids"]:
        """Whether each id is a sum over different depths."""
        return self._is_stream[: self.n_ids]

    @property
    def merged_gain(self) -> Int[np.ndarray, " ids"]:
        """Gain with which each id went into a merge."""
        return self._merged_gain[: self.n_ids]

    def _grow(self, size: int) -> None:
        capacity = len(self._parent)
        if size <= capacity:
            return
        extra = max(size, 2 * capacity) - capacity
        for name in ("_parent", "_writer", "_depth", "_is_stream", "_merged_gain"):
            column = getattr(self, name)
            setattr(self, name, np.concatenate([column, np.empty(extra, dtype=column.dtype)]))
