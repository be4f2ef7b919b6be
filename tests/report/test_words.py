"""Numbers as readers see them, by hand."""

from __future__ import annotations

import pytest

from modscope.report import content, words


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (words.number(-1.5, 1), "−1.5"),
        (words.number(None), "–"),
        (words.signed(0.17), "+0.17"),
        (words.signed(-0.17), "−0.17"),
        (words.signed(0.001), "0.00"),
        (words.signed(-0.001), "0.00"),
        (words.percent(0.194, 1), "19.4%"),
        (words.percent(None), "–"),
        (words.points(0.453), "45.3"),
        (words.p_text(0.0099), "0.010"),
        (words.p_text(1.0), "1.000"),
        (words.p_text(0.0001), "< 0.001"),
        (words.p_text(None), "–"),
        (words.p_clause(0.05), "p\u00a00.050"),
        (words.count(52244), "52,244"),
        (words.counted(1, "unit"), "1 unit"),
        (words.counted(1200, "unit"), "1,200 units"),
        (words.listed([]), ""),
        (words.listed(["A"]), "A"),
        (words.listed("ABC"), "A, B and C"),
        (words.typeset("z = -6.7 (95 % of 1-2, shuffle-1): -0.3 %"), "z = −6.7 (95% of 1-2, shuffle-1): −0.3%"),
        (words.spread([0.11, 0.11]), "11%"),
        (words.spread([0.69, 0.85, 0.7]), "69 to 85%"),
    ],
)
def test_a_number_is_written_for_readers(written, expected):
    assert written == expected


def test_modules_are_named_a_to_z_then_aa():
    assert [words.letter(i) for i in (0, 25, 26, 51, 52, 701, 702)] == ["A", "Z", "AA", "AZ", "BA", "ZZ", "AAA"]


def test_an_effect_in_percent_is_written_in_points_with_its_interval():
    test = content.Test(effect=0.119, percent=True, low=0.106, high=0.132)
    assert (words.effect(test), words.interval(test)) == ("+11.9 pts", "[10.6, 13.2]")


def test_a_small_effect_keeps_a_third_decimal():
    test = content.Test(effect=-0.0384, null_low=-0.05, null_high=0.05)
    assert (words.effect(test), words.interval(test)) == ("−0.038", "")
    assert words.effect(content.Test(effect=-0.17, null_low=-0.05, null_high=0.05)) == "−0.17"
