"""Does a comparison give the p-value, z, effect and interval that its definition says?"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope.errors import StatisticsError
from modscope.statistics import Comparison, compare


def first_value(values: np.ndarray, rng: np.random.Generator) -> float:
    return float(values[0])


def noisy_value(values: np.ndarray, rng: np.random.Generator) -> float:
    return float(values[0] + rng.normal())


def permuted(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.permutation(values)


def comparison_with(observed: float, samples: list[float], alternative: str = "less") -> Comparison:
    return Comparison(observed, np.array(samples), alternative, "by hand")


def test_p_is_r_plus_one_over_n_plus_one_and_ties_count_against_the_claim() -> None:
    comparison = comparison_with(2.0, [1.0, 2.0, 3.0, 4.0])
    assert comparison.p_value == pytest.approx(3 / 5)
    assert comparison_with(2.0, [1.0, 2.0, 3.0, 4.0], "greater").p_value == pytest.approx(4 / 5)


def test_p_of_a_constant_statistic_is_one() -> None:
    for alternative in ("less", "greater", "two-sided"):
        assert comparison_with(5.0, [5.0] * 99, alternative).p_value == 1.0


def test_sums_in_another_order_are_ties() -> None:
    assert comparison_with(0.1 + 0.2, [0.3] * 19, "greater").p_value == 1.0
    assert comparison_with(0.3, [0.1 + 0.2] * 19, "greater").p_value == 1.0


def test_p_is_never_below_the_floor_and_the_floor_doubles_for_two_sides() -> None:
    assert comparison_with(0.0, [1.0] * 19).p_value == comparison_with(0.0, [1.0] * 19).floor == pytest.approx(0.05)
    assert comparison_with(0.0, [1.0] * 19, "two-sided").p_value == pytest.approx(0.1)
    assert comparison_with(0.0, [1.0] * 19, "two-sided").floor == pytest.approx(0.1)


@settings(max_examples=50)
@given(
    observed=st.integers(-5, 5),
    samples=st.lists(st.integers(-5, 5), min_size=1, max_size=30),
)
def test_p_agrees_with_counting_by_hand(observed: int, samples: list[int]) -> None:
    low = (1 + sum(s <= observed for s in samples)) / (1 + len(samples))
    high = (1 + sum(s >= observed for s in samples)) / (1 + len(samples))
    values = [float(s) for s in samples]
    assert comparison_with(float(observed), values).p_value == pytest.approx(low)
    assert comparison_with(float(observed), values, "greater").p_value == pytest.approx(high)
    assert comparison_with(float(observed), values, "two-sided").p_value == pytest.approx(min(1, 2 * min(low, high)))


def test_z_is_the_distance_from_the_mean_in_population_standard_deviations() -> None:
    assert comparison_with(1.0, [2.0, 4.0]).z_score == pytest.approx(-2.0)


def test_z_is_undefined_with_a_reason_where_the_null_does_not_vary() -> None:
    comparison = comparison_with(0.5, [1.0] * 30)
    assert comparison.z_score is None
    assert "z is undefined" in (comparison.note or "")


def test_a_value_far_on_the_side_that_is_not_claimed_speaks_against_the_null_model() -> None:
    samples = np.random.default_rng(0).normal(size=19).tolist()
    for observed, alternative in ((8.0, "less"), (-8.0, "greater")):
        assert "look whether the null model" in (comparison_with(observed, samples, alternative).note or "")
    for observed, alternative in ((-8.0, "less"), (8.0, "greater"), (8.0, "two-sided"), (1.0, "less")):
        assert "look whether" not in (comparison_with(observed, samples, alternative).note or "")
    assert "look whether" not in (comparison_with(8.0, samples[:10], "less").note or "")  # too few to tell


def test_effect_is_positive_in_the_direction_of_the_claim() -> None:
    assert comparison_with(1.5, [2.0, 2.0]).effect == pytest.approx(0.25)
    assert comparison_with(1.5, [2.0, 2.0], "greater").effect == pytest.approx(-0.25)
    assert comparison_with(2.5, [2.0, 2.0], "two-sided").effect == pytest.approx(0.25)
    assert comparison_with(1.0, [-1.0, 1.0]).effect is None


def test_a_statistic_without_randomness_has_no_interval_and_a_random_one_covers_its_mean() -> None:
    values = np.arange(20.0)
    assert compare(values, first_value, permuted, n_samples=9, alternative="less").interval is None
    low, high = compare(values, noisy_value, permuted, n_samples=9, alternative="less", n_observed=20).interval or (
        1,
        0,
    )
    assert low < 0.0 < high
    assert 2 < high - low < 7  # about 2 x 1.96 x sqrt(1 + 1/20) for a unit normal


def test_the_same_seed_gives_the_same_samples_and_another_seed_others() -> None:
    values = np.arange(100.0)
    runs = [compare(values, noisy_value, permuted, n_samples=20, alternative="less", rng=rng) for rng in (3, 3, 4)]
    assert np.array_equal(runs[0].null_samples, runs[1].null_samples)
    assert runs[0].observed == runs[1].observed
    assert not np.array_equal(runs[0].null_samples, runs[2].null_samples)


def test_an_extended_comparison_is_the_one_that_a_longer_run_gives() -> None:
    values = np.arange(50.0)
    short = compare(values, noisy_value, permuted, n_samples=10, alternative="greater")
    long = compare(values, noisy_value, permuted, n_samples=25, alternative="greater")
    extended = short.extended(15)
    assert np.array_equal(extended.null_samples, long.null_samples)
    assert extended.looks == (10, 25)
    assert "samples were added 1 times" in (extended.note or "")
    assert extended.extended(5).looks == (10, 25, 30)


class InStream:
    """The statistic above, which can also take subjects in a stream; it looks two ahead, as a batch would."""

    def __init__(self) -> None:
        self.n_streams = 0

    def __call__(self, values: np.ndarray, rng: np.random.Generator) -> float:
        return noisy_value(values, rng)

    def many(self, subjects: Iterable[tuple[np.ndarray, np.random.Generator]]) -> Iterator[float]:
        self.n_streams += 1
        waiting: list[tuple[np.ndarray, np.random.Generator]] = []
        for pair in subjects:
            waiting.append(pair)
            if len(waiting) == 3:
                yield from (noisy_value(*one) for one in waiting)
                waiting = []
        yield from (noisy_value(*one) for one in waiting)


def test_a_statistic_that_takes_subjects_in_a_stream_gives_the_same_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    values, stream = np.arange(50.0), InStream()
    one_by_one = compare(values, noisy_value, permuted, n_samples=14, alternative="less", rng=2)
    streamed = compare(values, stream, permuted, n_samples=8, alternative="less", rng=2)
    assert stream.n_streams == 1
    assert np.array_equal(streamed.extended(6).null_samples, one_by_one.null_samples)
    with ThreadPoolExecutor(2) as threads:
        spread = compare(values, stream, permuted, n_samples=14, alternative="less", rng=2, executor=threads)
    assert np.array_equal(spread.null_samples, one_by_one.null_samples)
    assert stream.n_streams == 2  # workers take them one by one

    def broken(subjects: Iterable[object]) -> Iterator[float]:
        yield from (float("nan") for _ in subjects)

    monkeypatch.setattr(stream, "many", broken)
    with pytest.raises(StatisticsError, match="null sample 0 of permuted is nan"):
        compare(values, stream, permuted, n_samples=3, alternative="less")


def test_a_comparison_without_its_experiment_cannot_be_extended() -> None:
    with pytest.raises(StatisticsError, match="call compare again"):
        comparison_with(0.0, [1.0]).extended(5)


@pytest.mark.parametrize(("n_samples", "alternative"), [(0, "less"), (-3, "less"), (5, "smaller")])
def test_impossible_requests_are_refused_with_what_was_given(n_samples: int, alternative: str) -> None:
    with pytest.raises(StatisticsError, match=str(n_samples) if n_samples < 1 else "smaller"):
        compare(np.arange(3.0), first_value, permuted, n_samples=n_samples, alternative=alternative)


def test_a_statistic_that_is_not_a_number_is_an_error_that_says_where() -> None:
    def broken(values: np.ndarray, rng: np.random.Generator) -> float:
        return float("nan") if values[0] else 1.0

    with pytest.raises(StatisticsError, match=r"null sample \d+ of permuted is nan"):
        compare(np.arange(30.0), broken, permuted, n_samples=30, alternative="less")
    with pytest.raises(StatisticsError, match="the subject itself is inf"):
        compare(np.arange(3.0), lambda v, rng: np.inf, permuted, n_samples=3, alternative="less")


def test_a_record_is_plain_json_and_a_table_has_one_row() -> None:
    comparison = compare(np.arange(9.0), noisy_value, permuted, n_samples=19, alternative="less")
    record = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
    assert record["p_value"] == comparison.p_value
    assert record["null_samples"] == comparison.null_samples.tolist()
    frame = comparison.to_frame()
    assert frame.height == 1
    assert frame["p_value"][0] == comparison.p_value
    assert "permuted" in repr(comparison)
    assert "<table" in comparison._repr_html_()


def test_the_picture_has_a_line_at_the_observed_value() -> None:
    pytest.importorskip("matplotlib").use("agg")
    comparison = compare(np.arange(9.0), noisy_value, permuted, n_samples=19, alternative="less")
    lines = [line.get_xdata()[0] for line in comparison.plot().get_lines()]
    assert comparison.observed in lines
