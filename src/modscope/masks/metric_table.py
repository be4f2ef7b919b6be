"""What do the papers' numbers say about a set of masks, beside random masks and two runs of one task?"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from modscope.errors import MaskError
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.metric_counts import MEASURES, Counts, Measure, counts_of
from modscope.masks.metrics import union
from modscope.progress import track
from modscope.records import Record, plain, record_of

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

ALL = "all"
METRICS = ("iou", "io_min", "shared", "remaining", "transfer_share")
_PAIRWISE = ("iou", "io_min")


@dataclass(frozen=True)
class MetricRow:
    """One of the papers' numbers for one task, or two, in one part of the network. Means over seeds.

    Random masks keep as many weights of every tensor, and in `chance_matched` as many of every decile of sizes among
    the weights that the same tasks feel. None where a number is undefined; `reason` says why `value` is.
    """

    metric: str
    first: str
    second: str  # the other task, "others", "control" or "earlier"
    level: str  # "tensor", "layer" or "all"
    part: str  # the parameter, the layer, or "all"
    n_first: float  # weights kept
    n_second: float
    n_both: float
    value: float | None
    low: float | None  # 95 % interval of the mean over seeds, by Student's t
    high: float | None
    chance: float | None
    chance_low: float | None  # 2.5 % of random masks have less, first seeds
    chance_high: float | None
    chance_matched: float | None
    ceiling: float | None  # the same number for two seeds of one task
    n_seeds: int
    reason: str

    def __str__(self) -> str:
        numbers = (("by chance", self.chance), ("two runs of one task", self.ceiling))
        beside = ", ".join(f"{name} {number:.2f}" for name, number in numbers if number is not None)
        value = f"undefined ({self.reason})" if self.value is None else f"{self.value:.2f} ({beside})"
        return f"{self.metric} of {self.first} and {self.second} {value}"


@dataclass(frozen=True)
class MetricTable:
    """The papers' numbers for every task or pair of tasks, per tensor, per layer and in all."""

    rows: tuple[MetricRow, ...]

    def row(self, metric: str, first: str, second: str | None = None, *, part: str = ALL) -> MetricRow:
        """One row; `second` is only needed for pairs of tasks.

        Raises:
            MaskError: If there is no such row.
        """
        for row in self.rows:
            names = {first} if second is None else {first, second}
            fits = row.first == first if second is None else {row.first, row.second} == names
            if row.metric == metric and row.part == part and fits:
                return row
        known = sorted({(row.metric, row.first, row.second) for row in self.rows})
        raise MaskError(f"no {metric} of {first} and {second} in '{part}'; there are {known}")

    def __str__(self) -> str:
        return "; ".join(str(row) for row in self.rows if row.level == ALL)

    def to_frame(self) -> pl.DataFrame:
        """One row per number."""
        import polars as pl

        return pl.DataFrame([asdict(row) for row in self.rows], infer_schema_length=None)

    def to_dict(self) -> dict[str, Any]:
        """The rows as plain JSON values."""
        return {"rows": [plain(row) for row in self.rows]}

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("mask metrics", self.to_dict())

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())

    def plot(self, ax: Axes | None = None, *, level: str = ALL) -> Axes:
        """Every number with its interval, what random masks have (grey), and what two runs of one task have (red)."""
        import matplotlib.pyplot as plt

        axes = plt.subplots()[1] if ax is None else ax
        rows = [row for row in self.rows if row.level == level and row.value is not None]
        for place, row in enumerate(rows):
            if row.chance_low is not None and row.chance_high is not None:
                axes.plot([place, place], [row.chance_low, row.chance_high], color="0.6", linewidth=8, alpha=0.6)
            if row.low is not None and row.high is not None:
                axes.plot([place, place], [row.low, row.high], color="C0")
        places = np.arange(len(rows))
        axes.plot(places, _numbers(rows, "chance"), "_", color="0.4", markersize=14, label="random masks")
        axes.plot(places, _numbers(rows, "ceiling"), "r_", markersize=14, label="two runs of one task")
        axes.plot(places, _numbers(rows, "value"), "o", color="C0", label="masks")
        labels = [
            f"{row.metric}\n{row.first}, {row.second}" + ("" if level == ALL else f"\n{row.part}") for row in rows
        ]
        axes.set_xticks(places, labels, rotation=45, ha="right")
        axes.set_ylim(0, 1.02)
        axes.legend()
        return axes


def mask_metrics(mask_set: MaskSet, *, control: str | None = None, metrics: Sequence[str] | None = None) -> MetricTable:
    """The papers' numbers for a set of masks, each beside its chance and its ceiling.

    `iou` and `io_min` compare every two tasks. `shared` is the share of a mask that another task's mask keeps too,
    `remaining` the share of the control mask that a task's keeps, `transfer_share` the share of a mask that earlier
    tasks' masks, in the order of the set, use already. Chance is exact: numbers of shared weights are sums of
    hypergeometric ones. The ceiling puts a second seed of the same task in the other mask's place.

    Args:
        mask_set: Masks of at least two tasks; with several seeds, seed k of one task is held against seed k of others.
        control: The task whose masks were learned on everything; it is in no number but `remaining`.
        metrics: Which of `METRICS`; None: all but `transfer_share`, and `remaining` only with a control.

    Raises:
        MaskError: If there are too few tasks, no such control, or a metric is unknown.

    Source: Csordás et al. 2021 (the metrics); the baselines are ours.
    """
    tasks = [name for name in mask_set if name != control]
    if control is not None and control not in mask_set:
        raise MaskError(f"no control masks '{control}'; there are masks of {', '.join(mask_set)}")
    if metrics is None:
        metrics = [each for each in METRICS[:4] if control is not None or each != "remaining"]
    for metric in metrics:
        if metric not in METRICS:
            raise MaskError(f"metrics are {', '.join(METRICS)}; got '{metric}'")
        if metric == "remaining" and control is None:
            raise MaskError("'remaining' is a share of the control mask; say which masks are the control's")
    if len(tasks) < 2 and set(metrics) - {"remaining"}:
        raise MaskError(f"metrics need masks of at least two tasks, got {', '.join(tasks) or 'none'}")
    controls = [] if control is None else [control]
    contests = [each for metric in metrics for each in _contests(metric, mask_set, tasks, controls)]
    rows = (row for contest in track(contests, "metrics of masks") for row in _rows_of(contest))
    return MetricTable(tuple(rows))


@dataclass(frozen=True, eq=False)
class _Contest:
    """One number to compute."""

    metric: str
    first: str
    second: str
    pairs: tuple[tuple[Mask, Mask], ...]  # one per seed
    involved: tuple[tuple[Mask, ...], ...]  # per seed, the masks whose strata matched random masks keep to
    twins: tuple[tuple[tuple[Mask, Mask], ...], ...]  # for the ceiling, per task: pairs of seeds


def _contests(metric: str, masks: MaskSet, tasks: Sequence[str], controls: Sequence[str]) -> list[_Contest]:
    if metric in _PAIRWISE:
        pairs = itertools.combinations(tasks, 2)
        return [_contest(metric, masks, a, [b], b, twins_of=(a, b)) for a, b in pairs]
    if metric == "shared":
        return [_contest(metric, masks, a, [b for b in tasks if b != a], "others", twins_of=(a,)) for a in tasks]
    if metric == "transfer_share":
        return [_contest(metric, masks, a, tasks[:i], "earlier", twins_of=(a,)) for i, a in enumerate(tasks) if i]
    return [_contest(metric, masks, task, controls, "control", twins_of=controls) for task in tasks]


def _contest(
    metric: str, masks: MaskSet, first: str, others: Sequence[str], second: str, *, twins_of: Sequence[str]
) -> _Contest:
    n_seeds = min(len(masks.seeds(name)) for name in (first, *others))
    of_others = [tuple(masks.seeds(name)[seed] for name in others) for seed in range(n_seeds)]
    return _Contest(
        metric,
        first,
        second,
        tuple((masks.seeds(first)[seed], union(several)) for seed, several in enumerate(of_others)),
        tuple((masks.seeds(first)[seed], *several) for seed, several in enumerate(of_others)),
        tuple(tuple(itertools.permutations(masks.seeds(name), 2)) for name in twins_of),
    )


def _rows_of(contest: _Contest) -> list[MetricRow]:
    names = contest.pairs[0][0].names
    plain_cells = [counts_of(pair, names) for pair in contest.pairs]
    matched = [
        counts_of(pair, names, strata)
        for pair, involved in zip(contest.pairs, contest.involved, strict=True)
        if len(strata := [mask.strata for mask in involved if mask.strata is not None]) == len(involved)
    ]
    twins = [[counts_of(pair, names) for pair in pairs] for pairs in contest.twins]
    rows = []
    for level, part, members in _parts(names):
        rows.append(
            _row(
                contest,
                (level, part),
                [_joined(counts, members) for counts in plain_cells],
                [_joined(counts, members) for counts in matched],
                [[_joined(counts, members) for counts in pairs] for pairs in twins],
            )
        )
    return rows


def _parts(names: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Level, name and parameters of every part: tensors, layers, everything."""
    layers: dict[str, list[str]] = {}
    for name in names:
        layers.setdefault(name.rpartition(".")[0], []).append(name)
    tensors = [("tensor", name, [name]) for name in names]
    return [*tensors, *(("layer", layer, several) for layer, several in layers.items()), (ALL, ALL, list(names))]


def _joined(counts: Mapping[str, Counts], members: Sequence[str]) -> Counts:
    return Counts.together([counts[name] for name in members])


def _row(
    contest: _Contest,
    where: tuple[str, str],
    counts: Sequence[Counts],
    matched: Sequence[Counts],
    twins: Sequence[Sequence[Counts]],
) -> MetricRow:
    measure = MEASURES[contest.metric]
    values = np.array([measure.of(each) for each in counts])
    low, high = _interval(values[np.isfinite(values)])
    chances = np.array([measure.by_chance(each) for each in counts])  # (seeds, 3)
    return MetricRow(
        contest.metric,
        contest.first,
        contest.second,
        *where,
        n_first=float(np.mean([each.n_first for each in counts])),
        n_second=float(np.mean([each.n_second for each in counts])),
        n_both=float(np.mean([each.both for each in counts])),
        value=_mean(values),
        low=low,
        high=high,
        chance=_mean(chances[:, 0]),
        chance_low=_mean(chances[:1, 1]),
        chance_high=_mean(chances[:1, 2]),
        chance_matched=_mean(np.array([measure.by_chance(each)[0] for each in matched])),
        ceiling=_ceiling(measure, twins),
        n_seeds=int(np.isfinite(values).sum()),
        reason="" if np.isfinite(values).any() else "a mask keeps no weight there",
    )


def _ceiling(measure: Measure, twins: Sequence[Sequence[Counts]]) -> float | None:
    """Mean over two seeds of one task; of two tasks the geometric mean. None with one seed."""
    agreements = [_mean(np.array([measure.of(counts) for counts in pairs])) for pairs in twins]
    known = [agreement for agreement in agreements if agreement is not None]
    return float(np.prod(known) ** (1 / len(known))) if len(known) == len(agreements) else None


def _interval(values: Float[np.ndarray, " seeds"]) -> tuple[float | None, float | None]:
    if len(values) < 2:
        return None, None
    from scipy.special import stdtrit

    half = float(stdtrit(len(values) - 1, 0.975) * values.std(ddof=1) / np.sqrt(len(values)))
    return max(float(values.mean()) - half, 0.0), min(float(values.mean()) + half, 1.0)


def _mean(values: Float[np.ndarray, " values"]) -> float | None:
    """The mean of the defined ones; None if there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _numbers(rows: Sequence[MetricRow], name: str) -> list[float]:
    numbers = [getattr(row, name) for row in rows]
    return [float("nan") if number is None else number for number in numbers]
