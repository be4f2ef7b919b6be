from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from modscope.errors import MaskError
from modscope.masks.chance import random_intersection
from modscope.masks.mask import Mask, MaskSet
from modscope.masks.metric_table import METRICS, MetricTable, mask_metrics
from modscope.masks.metrics import io_min, iou, remaining, shared, transfer_share

SIZES = {"first.weight": 30, "first.bias": 6, "second.weight": 40}


def random_mask(rng: np.random.Generator, density: float = 0.3, *, with_strata: bool = False) -> Mask:
    kept = {name: torch.from_numpy(rng.random(size) < density) for name, size in SIZES.items()}
    strata = {name: torch.from_numpy(rng.integers(0, 3, size).astype(np.uint8)) for name, size in SIZES.items()}
    return Mask(kept, None, {}, strata if with_strata else None)


def random_masks(seed: int, *names: str, n_seeds: int = 1, with_strata: bool = False) -> MaskSet:
    rng = np.random.default_rng(seed)
    return MaskSet({name: [random_mask(rng, with_strata=with_strata) for _ in range(n_seeds)] for name in names})


def entries(mask: Mask, names: list[str]) -> set[tuple[str, int]]:
    """The kept entries as a plain set."""
    return {(name, i) for name in names for i, kept in enumerate(mask.kept[name].tolist()) if kept}


def slow(metric: str, first: set[object], second: set[object]) -> float:
    """From the papers' definitions, on plain sets."""
    over = {
        "iou": first | second,
        "io_min": min(first, second, key=len),
        "shared": first,
        "remaining": second,
        "transfer_share": first,
    }[metric]
    return len(first & second) / len(over) if over else math.nan


@pytest.mark.parametrize("metric", METRICS)
def test_every_number_agrees_with_sets_in_every_tensor_layer_and_in_all(metric: str) -> None:
    masks = random_masks(0, "a", "b", "c", "control", n_seeds=2)
    table = mask_metrics(masks, control="control", metrics=[metric])
    others = {
        "iou": {("a", "b"): ["b"], ("a", "c"): ["c"], ("b", "c"): ["c"]},
        "io_min": {("a", "b"): ["b"], ("a", "c"): ["c"], ("b", "c"): ["c"]},
        "shared": {("a", "others"): ["b", "c"], ("b", "others"): ["a", "c"], ("c", "others"): ["a", "b"]},
        "remaining": {(name, "control"): ["control"] for name in "abc"},
        "transfer_share": {("b", "earlier"): ["a"], ("c", "earlier"): ["a", "b"]},
    }[metric]
    parts = {name: [name] for name in SIZES}
    parts |= {"first": ["first.weight", "first.bias"], "second": ["second.weight"], "all": list(SIZES)}
    assert len(table.rows) == len(others) * len(parts)
    for (first, second), names in others.items():
        for part, members in parts.items():
            row = next(each for each in table.rows if (each.first, each.second, each.part) == (first, second, part))
            wanted = []
            for seed in range(2):
                union = set().union(*(entries(masks.seeds(name)[seed], members) for name in names))
                wanted.append(slow(metric, entries(masks.seeds(first)[seed], members), union))
            assert row.value == pytest.approx(np.nanmean(wanted))  # seeds where it is undefined are left out
            assert row.n_seeds == np.isfinite(wanted).sum()


def test_chance_is_the_mean_over_random_masks_of_the_same_size_per_tensor() -> None:
    masks = random_masks(1, "a", "b", "c")
    table = mask_metrics(masks, metrics=["iou", "io_min", "shared", "transfer_share"])
    rng = np.random.default_rng(0)

    def shuffled(mask: Mask) -> Mask:
        return Mask({name: kept[torch.from_numpy(rng.permutation(len(kept)))] for name, kept in mask.kept.items()})

    draws: dict[str, list[float]] = {name: [] for name in ("iou", "io_min", "shared", "transfer_share")}
    for _ in range(3000):
        a = shuffled(masks["a"])
        draws["iou"].append(iou(a, masks["b"]))
        draws["io_min"].append(io_min(a, masks["b"]))
        draws["shared"].append(shared(a, [masks["b"], masks["c"]]))
        draws["transfer_share"].append(transfer_share(shuffled(masks["c"]), [masks["a"], masks["b"]]))
    rows = {
        "iou": table.row("iou", "a", "b"),
        "io_min": table.row("io_min", "a", "b"),
        "shared": table.row("shared", "a"),
        "transfer_share": table.row("transfer_share", "c"),
    }
    for metric, row in rows.items():
        drawn = np.array(draws[metric])
        assert row.chance == pytest.approx(drawn.mean(), abs=4 * drawn.std() / math.sqrt(len(drawn)))
        assert row.chance_low is not None
        assert row.chance_high is not None
        assert (drawn < row.chance_low).mean() <= 0.035
        assert (drawn > row.chance_high).mean() <= 0.035
        assert row.chance_low < row.chance < row.chance_high


def test_matched_chance_keeps_the_numbers_per_decile_among_weights_felt_by_the_same_tasks() -> None:
    masks = random_masks(2, "a", "b", with_strata=True)
    a, b = masks["a"], masks["b"]
    row = mask_metrics(masks, metrics=["iou"]).row("iou", "a", "b")
    assert a.strata is not None
    assert b.strata is not None
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(3000):
        kept = {}
        for name, before in a.kept.items():
            after = before.numpy().copy()
            for cell in itertools.product(range(3), range(3)):
                members = np.flatnonzero((a.strata[name].numpy() == cell[0]) & (b.strata[name].numpy() == cell[1]))
                after[members] = after[rng.permutation(members)]
            kept[name] = torch.from_numpy(after)
        drawn.append(iou(Mask(kept), b))
    assert row.chance_matched == pytest.approx(np.mean(drawn), abs=4 * np.std(drawn) / math.sqrt(len(drawn)))


def test_masks_that_share_nothing_beyond_chance_have_the_value_of_chance() -> None:
    gaps = []
    for seed in range(60):
        row = mask_metrics(random_masks(seed, "a", "b"), metrics=["iou"]).row("iou", "a", "b")
        assert row.value is not None
        assert row.chance is not None
        gaps.append(row.value - row.chance)
    assert abs(np.mean(gaps)) < 3 * np.std(gaps) / math.sqrt(len(gaps))


def test_the_ceiling_is_the_number_for_two_seeds_of_one_task() -> None:
    masks = random_masks(3, "a", "b", "control", n_seeds=2)
    table = mask_metrics(masks, control="control", metrics=["iou", "shared", "remaining"])
    a, b, control = (masks.seeds(name) for name in ("a", "b", "control"))
    assert table.row("iou", "a", "b").ceiling == pytest.approx(math.sqrt(iou(*a) * iou(*b)))
    both_ways = (shared(a[0], [a[1]]) + shared(a[1], [a[0]])) / 2
    assert table.row("shared", "a").ceiling == pytest.approx(both_ways)
    both_ways = (remaining(control[0], control[1]) + remaining(control[1], control[0])) / 2
    assert table.row("remaining", "a").ceiling == pytest.approx(both_ways)


def test_one_seed_gives_no_ceiling_and_no_interval() -> None:
    row = mask_metrics(random_masks(4, "a", "b"), metrics=["iou"]).row("iou", "b", "a")
    assert row.ceiling is None
    assert row.low is None
    assert row.value is not None


def test_the_interval_over_seeds_is_students() -> None:
    masks = random_masks(5, "a", "b", n_seeds=4)
    values = [iou(x, y) for x, y in zip(masks.seeds("a"), masks.seeds("b"), strict=True)]
    row = mask_metrics(masks, metrics=["iou"]).row("iou", "a", "b")
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert row.low == pytest.approx(max(low, 0))
    assert row.high == pytest.approx(min(high, 1))


def test_empty_masks_are_undefined_and_say_so() -> None:
    nothing = Mask({name: torch.zeros(size, dtype=torch.bool) for name, size in SIZES.items()})
    something = random_masks(6, "a")["a"]
    table = mask_metrics(MaskSet({"empty": nothing, "a": something, "control": nothing}), control="control")
    for metric in ("io_min", "remaining"):
        rows = [row for row in table.rows if row.metric == metric]
        assert all(row.value is None and row.chance is None and "keeps no weight" in row.reason for row in rows)
    assert table.row("shared", "empty").value is None
    assert table.row("shared", "a").value == 0
    assert table.row("iou", "empty", "a").value == 0
    assert math.isnan(iou(nothing, nothing))
    assert math.isnan(io_min(nothing, something))
    assert math.isnan(shared(nothing, [something]))
    assert math.isnan(remaining(nothing, something))
    assert math.isnan(transfer_share(nothing, [something]))
    json.dumps(table.to_dict(), allow_nan=False)


def test_the_transfer_share_of_a_first_task_is_zero() -> None:
    assert transfer_share(random_masks(7, "a")["a"], []) == 0


@settings(deadline=None, max_examples=40)
@given(cells=st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8)), min_size=1, max_size=3))
def test_random_intersections_agree_with_counting_all_sets(cells: list[tuple[int, int, int]]) -> None:
    cells = [(size, min(a, size), min(b, size)) for size, a, b in cells]
    outcomes = np.zeros(1 + sum(min(a, b) for _, a, b in cells))
    counts = [
        [len(set(range(a)) & set(chosen)) for chosen in itertools.combinations(range(size), b)] for size, a, b in cells
    ]
    for combination in itertools.product(*[sorted(set(each)) for each in counts]):
        weight = math.prod(each.count(number) / len(each) for each, number in zip(counts, combination, strict=True))
        outcomes[sum(combination)] += weight
    found = random_intersection(cells)
    spread = np.zeros_like(outcomes)
    spread[found.least : found.least + len(found.probabilities)] = found.probabilities
    assert spread == pytest.approx(outcomes, abs=1e-12)


def test_random_intersections_of_a_million_weights_have_the_known_mean_and_spread() -> None:
    size, a, b = 1_000_000, 20_000, 50_000
    found = random_intersection([(size, a, b), (size, a, b)])
    mean = found.mean(lambda both: both)
    assert mean == pytest.approx(2 * a * b / size)
    variance = 2 * a * b / size * (1 - a / size) * (size - b) / (size - 1)
    assert found.mean(lambda both: (both - mean) ** 2) == pytest.approx(variance, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ["jaccard"]}, "got 'jaccard'"),
        ({"metrics": ["remaining"]}, "say which masks are the control's"),
        ({"control": "everything"}, "no control masks 'everything'"),
        ({"control": "b"}, "at least two tasks"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(MaskError, match=message):
        mask_metrics(random_masks(8, "a", "b"), **arguments)


def test_unknown_rows_and_no_others_are_named() -> None:
    masks = random_masks(8, "a", "b")
    with pytest.raises(MaskError, match="no iou of a and c"):
        mask_metrics(masks).row("iou", "a", "c")
    with pytest.raises(MaskError, match="at least one"):
        shared(masks["a"], [])


def test_a_table_shows_itself() -> None:
    table: MetricTable = mask_metrics(random_masks(9, "a", "b", n_seeds=2, with_strata=True))
    assert table.to_frame().height == len(table.rows) == 4 * 6
    assert "<table" in table._repr_html_()
    assert table.record().content["rows"][0]["metric"] == "iou"
    axes = table.plot()
    assert len(axes.get_xticks()) == 4
    assert table.plot(level="layer").get_xticklabels()[0].get_text().endswith("first")
