"""Do two tasks use the same weights, more or less than chance allows, and as far as two runs of one task do?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from modscope.errors import MaskError
from modscope.masks.compared import Compared, compared, exact_p, iou_of
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.metrics import io_min, iou
from modscope.masks.unit_chance import UnitChance, residuals, unit_chances
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
    p_above: float  # that matched random weights overlap at least as much, first seeds; takes weights as independent
    p_below: float  # ... at most as much
    ceiling: float | None  # what two runs of one task reach; None with one seed
    w: float | None  # (overlap - chance) / (ceiling - chance): 0 at chance, 1 as two runs of one task
    reason: str  # why w is None
    p_above_units: float | None = None  # that units in random places overlap at least as much, all seeds
    p_below_units: float | None = None  # ... at most as much

    def __str__(self) -> str:
        ceiling = "" if self.ceiling is None else f", two runs of one task {self.ceiling:.2f}"
        w = f"; w undefined: {self.reason}" if self.w is None else f": w {self.w:.2f}"
        return f"{self.first} and {self.second} overlap {self.overlap:.2f} (by chance {self.chance:.2f}{ceiling}){w}"


@dataclass(frozen=True, eq=False)
class PairOverlap:
    """The overlap of two tasks, seed by seed."""

    first: str
    second: str
    rows: tuple[OverlapRow, ...]
    overlap: Float[np.ndarray, "first_seeds second_seeds"]
    w: Float[np.ndarray, "first_seeds second_seeds"] | None
    within: Float[np.ndarray, "masks masks"]  # overlap of all masks of both tasks, first task's seeds first
    chance: Float[np.ndarray, "masks masks"]  # what random weights of the same sizes would have
    by_units: UnitChance | None = None  # what they would have with the units of one task in random places

    @property
    def n_seeds(self) -> dict[str, int]:
        """Masks per task."""
        n_first = len(self.overlap)
        return {self.first: n_first, self.second: len(self.within) - n_first}

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

    def __str__(self) -> str:
        return "\n".join(str(pair.total) for pair in self.pairs)

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


def overlap(mask_set: MaskSet, *, n_unit_samples: int = 99, rng: Rng = 0) -> Overlap:
    """How far every two tasks share weights, against random weights and against two runs of one task.

    Compared are the weights that both tasks feel, with both masks cut in each tensor to the size of the smaller
    (largest logits first). Chance matches each mask's number of weights per tensor and decile of size, and is exact:
    the intersection is a sum of hypergeometric numbers. But the weights of a unit rise and fall together, and the
    exact p is too small then: `p_above_units` and `p_below_units` come from moving whole units, and are to be believed.

    Args:
        mask_set: Masks of at least two tasks; two seeds of each give the ceiling. Learned masks know their strata;
            for others all weights count as felt and of one size.
        n_unit_samples: How often the units change places; 0: no p by units.
        rng: Breaks ties between equal logits, and moves units.

    Raises:
        MaskError: If there are fewer than two tasks, or `n_unit_samples` is negative.
    """
    if n_unit_samples < 0:
        raise MaskError(f"n_unit_samples must not be negative, got {n_unit_samples}")
    if len(mask_set) < 2:
        raise MaskError(f"overlap needs masks of at least two tasks, got {', '.join(mask_set) or 'none'}")
    rng = generator(rng)
    names = list(itertools.combinations(mask_set, 2))
    return Overlap(
        tuple(_pair(mask_set, first, second, n_unit_samples, rng) for first, second in track(names, "overlap of masks"))
    )


def _pair(mask_set: MaskSet, first: str, second: str, n_unit_samples: int, rng: np.random.Generator) -> PairOverlap:
    masks = (*mask_set.seeds(first), *mask_set.seeds(second))
    n_first = len(mask_set.seeds(first))
    parts = [compared(masks, name, rng) for name in masks[0].names]
    by_units = _by_units(parts, masks, n_first, n_unit_samples, rng)
    whole = Compared.all_of(parts)
    raw = [[(iou(a, b), io_min(a, b)) for b in masks[n_first:]] for a in masks[:n_first]]
    rows = [
        _row(part, (first, second, name), n_first, _raw(masks, n_first, name), by_units.get(name))
        for part, name in zip(parts, masks[0].names, strict=True)
    ]
    total = _row(whole, (first, second, ALL), n_first, np.array(raw).mean(axis=(0, 1)), by_units.get(ALL))
    cross = whole.iou[:n_first, n_first:]
    w = None
    if total.w is not None and total.ceiling is not None:
        chance = whole.chance[:n_first, n_first:]
        w = (cross - chance) / (total.ceiling - chance)
    return PairOverlap(first, second, (*rows, total), cross, w, whole.iou, whole.chance, by_units.get(ALL))


def _row(
    compared: Compared,
    names: tuple[str, str, str],
    n_first: int,
    raw: Sequence[float] | np.ndarray,
    by_units: UnitChance | None,
) -> OverlapRow:
    cross = compared.iou[:n_first, n_first:]
    chance = compared.chance[:n_first, n_first:]
    ceiling = _ceiling(compared.iou, n_first)
    plain = float(iou_of(np.array(compared.expected_plain), compared.n_kept))
    p_above, p_below, low, high = exact_p(compared, 0, n_first)
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
        float(iou_of(np.array(low), compared.n_kept)),
        float(iou_of(np.array(high), compared.n_kept)),
        plain,
        p_above,
        p_below,
        ceiling,
        w,
        reason,
        None if by_units is None else by_units.p_above,
        None if by_units is None else by_units.p_below,
    )


def _by_units(
    parts: Sequence[Compared], masks: Sequence[Mask], n_first: int, n_samples: int, rng: np.random.Generator
) -> dict[str, UnitChance]:
    """What the two tasks share with units in random places, by parameter and in all; seeds move together."""
    if n_samples == 0:
        return {}
    both = [
        {
            name: residuals(part.chosen[seeds].mean(axis=0), part.strata, tuple(masks[0].kept[name].shape))
            for name, part in zip(masks[0].names, parts, strict=True)
        }
        for seeds in (slice(None, n_first), slice(n_first, None))
    ]
    return unit_chances(*both, n_samples=n_samples, rng=rng)


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


def _raw(masks: Sequence[Mask], n_first: int, name: str) -> tuple[float, float]:
    one = [Mask({name: mask.kept[name]}) for mask in masks]
    pairs = [(a, b) for a in one[:n_first] for b in one[n_first:]]
    return float(np.mean([iou(a, b) for a, b in pairs])), float(np.mean([io_min(a, b) for a, b in pairs]))


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
