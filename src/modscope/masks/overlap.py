"""Do two tasks use the same weights, more or less than chance allows, and as far as two runs of one task do?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.errors import MaskError
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.metrics import io_min, iou
from modscope.progress import track
from modscope.randomness import Rng, generator
from modscope.records import Record, record_of

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

ALL = "all"
_LEAST_RANGE = 0.1  # of ceiling - chance, below which w is mostly noise


@dataclass(frozen=True)
class OverlapRow:
    """How far two tasks share the weights of one parameter, or of all (`parameter` is "all"). Means over seeds.

    `overlap`, `chance` and `ceiling` are intersection over union at equal size among the weights that both tasks
    feel; `iou` and `io_min` are of the whole masks.
    """

    first: str
    second: str
    parameter: str
    n_eligible: int
    n_kept: int  # per mask, after both were cut to equal size
    iou: float
    io_min: float
    overlap: float
    chance: float  # random weights, matched per tensor and decile of size
    chance_low: float  # 2.5 % of matched random weights overlap less, first seeds
    chance_high: float  # 2.5 % overlap more
    chance_plain: float  # random weights, matched per tensor only
    p_above: float  # probability that matched random weights overlap at least as much, first seeds
    p_below: float  # ... at most as much
    ceiling: float | None  # what two runs of one task reach; None with one seed
    w: float | None  # (overlap - chance) / (ceiling - chance): 0 at chance, 1 as two runs of one task
    reason: str  # why w is None


@dataclass(frozen=True, eq=False)
class PairOverlap:
    """The overlap of two tasks, seed by seed."""

    first: str
    second: str
    rows: tuple[OverlapRow, ...]
    overlap: Float[np.ndarray, "first_seeds second_seeds"]
    w: Float[np.ndarray, "first_seeds second_seeds"] | None
    within: Float[np.ndarray, "masks masks"]  # overlap of all masks of both tasks, first task's seeds first

    @property
    def total(self) -> OverlapRow:
        """The row over all parameters."""
        return self.rows[-1]


@dataclass(frozen=True, eq=False)
class Overlap:
    """The overlap of every pair of tasks, per parameter and in all."""

    pairs: tuple[PairOverlap, ...]

    @cached_property
    def rows(self) -> tuple[OverlapRow, ...]:
        """All rows of all pairs."""
        return tuple(row for pair in self.pairs for row in pair.rows)

    def pair(self, first: str, second: str) -> PairOverlap:
        """The overlap of two tasks, in either order.

        Raises:
            MaskError: If there is no such pair.
        """
        for pair in self.pairs:
            if {pair.first, pair.second} == {first, second}:
                return pair
        known = ", ".join(f"{pair.first}-{pair.second}" for pair in self.pairs)
        raise MaskError(f"no pair {first}-{second}; there are {known}")

    def to_frame(self) -> pl.DataFrame:
        """One row per pair of tasks and parameter, and one for all parameters."""
        import polars as pl

        return pl.DataFrame([asdict(row) for row in self.rows], infer_schema_length=None)

    def to_dict(self) -> dict[str, Any]:
        """The rows as plain JSON values; None where a number is undefined."""
        return {"rows": [{name: _plain(value) for name, value in asdict(row).items()} for row in self.rows]}

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("overlap", self.to_dict())

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())

    def plot(self, ax: Axes | None = None) -> Axes:
        """Overlap, chance and ceiling per parameter, one group of marks per pair."""
        import matplotlib.pyplot as plt

        axes = plt.subplots()[1] if ax is None else ax
        labels = [f"{row.parameter}\n{row.first} / {row.second}" for row in self.rows]
        places = np.arange(len(labels))
        axes.bar(places, [row.overlap for row in self.rows], label="overlap", width=0.6)
        axes.plot(places, [row.chance for row in self.rows], "k_", markersize=14, label="chance, same sizes")
        if any(row.ceiling is not None for row in self.rows):
            ceilings = [np.nan if row.ceiling is None else row.ceiling for row in self.rows]
            axes.plot(places, ceilings, "r_", markersize=14, label="two runs of one task")
        axes.set_xticks(places, labels, rotation=45, ha="right")
        axes.set_ylabel("intersection over union")
        axes.set_ylim(0, 1)
        axes.legend()
        return axes


def overlap(mask_set: MaskSet, *, rng: Rng = 0) -> Overlap:
    """How far every two tasks share weights, against random weights and against two runs of one task.

    Compared are the weights that both tasks feel, with both masks cut in each tensor to the size of the smaller
    (largest logits first). Chance matches each mask's number of weights per tensor and decile of size, and is exact:
    the intersection is a sum of hypergeometric numbers.

    Args:
        mask_set: Masks of at least two tasks; two seeds of each give the ceiling. Learned masks know their strata;
            for others all weights count as felt and of one size.
        rng: Breaks ties between equal logits.

    Raises:
        MaskError: If there are fewer than two tasks.
    """
    if len(mask_set) < 2:
        raise MaskError(f"overlap needs masks of at least two tasks, got {', '.join(mask_set) or 'none'}")
    rng = generator(rng)
    names = list(itertools.combinations(mask_set, 2))
    return Overlap(tuple(_pair(mask_set, first, second, rng) for first, second in track(names, "overlap of masks")))


def common_strata(masks: Sequence[Mask], names: Sequence[str] | None = None) -> dict[str, Tensor]:
    """By parameter name, the decile of each weight's size, 0 where one of the masks' tasks does not feel it.

    One stratum for all weights where no mask knows better.
    """
    known = [mask.strata for mask in masks if mask.strata is not None]
    common: dict[str, Tensor] = {}
    for name in masks[0].names if names is None else names:
        if not known:
            common[name] = torch.ones_like(masks[0].kept[name], dtype=torch.uint8, device="cpu")
            continue
        common[name] = known[0][name].cpu()
        for strata in known[1:]:
            common[name] = torch.minimum(common[name], strata[name].cpu())
    return common


def _pair(mask_set: MaskSet, first: str, second: str, rng: np.random.Generator) -> PairOverlap:
    masks = (*mask_set.seeds(first), *mask_set.seeds(second))
    n_first = len(mask_set.seeds(first))
    parts = [_compared(masks, name, rng) for name in masks[0].names]
    whole = _Compared.all_of(parts)
    raw = [[(iou(a, b), io_min(a, b)) for b in masks[n_first:]] for a in masks[:n_first]]
    rows = [
        _row(part, (first, second, name), n_first, _raw(masks, n_first, name))
        for part, name in zip(parts, masks[0].names, strict=True)
    ]
    total = _row(whole, (first, second, ALL), n_first, np.array(raw).mean(axis=(0, 1)))
    cross = whole.iou[:n_first, n_first:]
    w = None
    if total.w is not None and total.ceiling is not None:
        chance = whole.chance[:n_first, n_first:]
        w = (cross - chance) / (total.ceiling - chance)
    return PairOverlap(first, second, (*rows, total), cross, w, whole.iou)


@dataclass(frozen=True, eq=False)
class _Compared:
    """All masks of a pair of tasks, compared with each other in one parameter or in all."""

    n_eligible: int
    n_kept: int
    intersection: Int[np.ndarray, "masks masks"]
    expected: Float[np.ndarray, "masks masks"]
    expected_plain: float
    counts: tuple[tuple[Int[np.ndarray, "masks _strata"], Int[np.ndarray, " _strata"]], ...]

    @staticmethod
    def all_of(parts: Sequence[_Compared]) -> _Compared:
        return _Compared(
            sum(part.n_eligible for part in parts),
            sum(part.n_kept for part in parts),
            np.sum([part.intersection for part in parts], axis=0),
            np.sum([part.expected for part in parts], axis=0),
            sum(part.expected_plain for part in parts),
            tuple(counts for part in parts for counts in part.counts),
        )

    @cached_property
    def iou(self) -> Float[np.ndarray, "masks masks"]:
        return _iou_of(self.intersection, self.n_kept)

    @cached_property
    def chance(self) -> Float[np.ndarray, "masks masks"]:
        return _iou_of(self.expected, self.n_kept)


def _compared(masks: Sequence[Mask], name: str, rng: np.random.Generator) -> _Compared:
    strata = _flat_strata(masks, name)
    eligible = strata > 0
    n_kept = min(int((mask.kept[name].cpu().reshape(-1).numpy() & eligible).sum()) for mask in masks)
    chosen = np.stack([_largest(mask, name, eligible, n_kept, rng) for mask in masks])  # (masks, weights)
    n_strata = int(strata.max(initial=0)) + 1
    sizes = np.bincount(strata, minlength=n_strata)[1:]
    counts = np.stack([np.bincount(strata[row], minlength=n_strata)[1:] for row in chosen])
    as_numbers = chosen.astype(np.float32)
    intersection = np.rint(as_numbers @ as_numbers.T).astype(np.int64)
    used = sizes > 0
    expected = (counts[:, None, used] * counts[None, :, used] / sizes[used]).sum(axis=2)
    n_eligible = int(eligible.sum())
    return _Compared(
        n_eligible, n_kept, intersection, expected, n_kept**2 / max(n_eligible, 1), ((counts[:, used], sizes[used]),)
    )


def _flat_strata(masks: Sequence[Mask], name: str) -> Int[np.ndarray, " weights"]:
    return common_strata(masks, (name,))[name].reshape(-1).numpy().astype(np.int64)


def _largest(mask: Mask, name: str, eligible: np.ndarray, n_kept: int, rng: np.random.Generator) -> np.ndarray:
    """The `n_kept` eligible kept weights with the largest logits; ties, and masks without logits, at random."""
    candidates = np.flatnonzero(mask.kept[name].cpu().reshape(-1).numpy() & eligible)
    chosen = np.zeros(len(eligible), dtype=bool)
    if len(candidates) > n_kept:
        candidates = rng.permutation(candidates)
        if mask.logits is not None:
            logits = mask.logits[name].reshape(-1).numpy()[candidates]
            candidates = candidates[np.argsort(-logits, kind="stable")]
    chosen[candidates[:n_kept]] = True
    return chosen


def _row(
    compared: _Compared, names: tuple[str, str, str], n_first: int, raw: Sequence[float] | np.ndarray
) -> OverlapRow:
    cross = compared.iou[:n_first, n_first:]
    chance = compared.chance[:n_first, n_first:]
    ceiling = _ceiling(compared.iou, n_first)
    plain = float(_iou_of(np.array(compared.expected_plain), compared.n_kept))
    p_above, p_below, low, high = _exact_p(compared, 0, n_first)
    reason = _why_undefined(compared.n_kept, ceiling, float(chance.mean()))
    w = None if reason or ceiling is None else float(((cross - chance) / (ceiling - chance)).mean())
    return OverlapRow(
        *names,
        compared.n_eligible,
        compared.n_kept,
        float(raw[0]),
        float(raw[1]),
        float(cross.mean()),
        float(chance.mean()),
        float(_iou_of(np.array(low), compared.n_kept)),
        float(_iou_of(np.array(high), compared.n_kept)),
        plain,
        p_above,
        p_below,
        ceiling,
        w,
        reason,
    )


def _why_undefined(n_kept: int, ceiling: float | None, chance: float) -> str:
    if n_kept == 0:
        return "a mask keeps no weight that both tasks feel"
    if ceiling is None:
        return "one seed a task: nothing says how far two runs of one task agree; learn n_seeds=2"
    if ceiling - chance < _LEAST_RANGE:
        return f"two runs of one task agree little more than chance ({ceiling:.2f} against {chance:.2f})"
    return ""


def _ceiling(between: Float[np.ndarray, "masks masks"], n_first: int) -> float | None:
    """Geometric mean of the two tasks' agreement between seeds; None if one has a single seed."""
    agreements = []
    for block in (between[:n_first, :n_first], between[n_first:, n_first:]):
        if len(block) < 2:
            return None
        agreements.append(block[np.triu_indices(len(block), 1)].mean())
    return float(np.sqrt(agreements[0] * agreements[1]))


def _iou_of(intersection: np.ndarray, n_kept: int) -> np.ndarray:
    """Intersection over union of two sets of `n_kept` each; NaN if empty."""
    union = 2 * n_kept - intersection
    filled = np.full(np.shape(union), np.nan)
    return np.asarray(np.divide(intersection, union, out=filled, where=union > 0))


def _exact_p(compared: _Compared, first: int, second: int) -> tuple[float, float, int, int]:
    """How matched random sets intersect, exactly.

    The probabilities that they do so at least, and at most, as much as two of the masks do; and the intersections
    that 2.5 % of them fall below, and 2.5 % above.
    """
    offset, mass = 0, np.ones(1)
    for counts, sizes in compared.counts:
        for n_a, n_b, size in zip(counts[first], counts[second], sizes, strict=True):
            low, probabilities = _hypergeometric(int(size), int(n_a), int(n_b))
            offset += low
            mass = np.convolve(mass, probabilities)
    observed = int(compared.intersection[first, second]) - offset
    total = mass.sum()
    at_least = float(mass[max(observed, 0) :].sum() / total) if observed < len(mass) else 0.0
    at_most = float(mass[: max(observed + 1, 0)].sum() / total)
    low, high = np.searchsorted(np.cumsum(mass) / total, [0.025, 0.975])
    return min(at_least, 1.0), min(at_most, 1.0), offset + int(low), offset + min(int(high), len(mass) - 1)


def _hypergeometric(size: int, n_a: int, n_b: int) -> tuple[int, Float[np.ndarray, " outcomes"]]:
    """The smallest likely intersection of random sets of n_a and n_b among `size`, and the probabilities from there."""
    from scipy.stats import hypergeom

    mean = n_a * n_b / size
    deviation = np.sqrt(max(mean * (1 - n_a / size) * (size - n_b) / max(size - 1, 1), 0))
    reach = 40 * deviation + 40  # what lies farther out is below the smallest float
    low = max(0, n_a + n_b - size, int(mean - reach))
    high = min(n_a, n_b, int(mean + reach))
    return low, np.asarray(hypergeom.pmf(np.arange(low, high + 1), size, n_a, n_b))


def _raw(masks: Sequence[Mask], n_first: int, name: str) -> tuple[float, float]:
    one = [Mask({name: mask.kept[name]}) for mask in masks]
    pairs = [(a, b) for a in one[:n_first] for b in one[n_first:]]
    return float(np.mean([iou(a, b) for a, b in pairs])), float(np.mean([io_min(a, b) for a, b in pairs]))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
