"""How are numbers written for readers? Percent, true minus, three decimals for p."""

from __future__ import annotations

import re
from collections.abc import Iterable

from modscope.report.content import Test

MINUS = "\u2212"
DASH = "\u2013"
NO_BREAK = "\u00a0"


def with_minus(text: str) -> str:
    """The text with the minus sign of typography instead of a hyphen."""
    return text.replace("-", MINUS)


def typeset(text: str) -> str:
    """A sentence with true minus signs and "95%" for "95 %"; nothing else is changed."""
    return re.sub(r"(?<=\d) %", "%", re.sub(r"(?<![\w.)\]-])-(?=\d)", MINUS, text))


def number(value: float | None, digits: int = 2) -> str:
    """A number with fixed decimals; a dash where there is none."""
    return DASH if value is None else with_minus(f"{value:.{digits}f}")


def signed(value: float, digits: int = 2) -> str:
    """A number with its sign; zero has none."""
    text = f"{value:+.{digits}f}"
    return with_minus(text if float(text) else text[1:])


def percent(value: float | None, digits: int = 0) -> str:
    """A fraction as percent; a dash where there is none."""
    return DASH if value is None else with_minus(f"{100 * value:.{digits}f}%")


def points(value: float | None, digits: int = 1) -> str:
    """A difference of fractions, in percentage points without the unit."""
    return DASH if value is None else with_minus(f"{100 * value:.{digits}f}")


def p_text(value: float | None) -> str:
    """A p-value with three decimals; one that would read 0.000 says below what it lies."""
    if value is None:
        return DASH
    return "< 0.001" if value < 0.0005 else f"{value:.3f}"


def p_clause(value: float | None) -> str:
    """How a sentence gives p: "p 0.010", never broken over two lines."""
    return f"p {p_text(value)}".replace(" ", NO_BREAK)


def count(value: float) -> str:
    """A whole number with commas between thousands."""
    return f"{value:,.0f}"


def counted(value: int, noun: str) -> str:
    """A count with its noun: "1 unit", "2 units"."""
    return f"{count(value)} {noun}{'' if value == 1 else 's'}"


def listed(words: Iterable[str]) -> str:
    """An enumeration: "A", "A and B", "A, B and C"."""
    several = list(words)
    return " and ".join([", ".join(several[:-1]), several[-1]]) if len(several) > 1 else "".join(several)


def spread(values: Iterable[float]) -> str:
    """Percent of one value, or from the smallest to the largest: "11%", "11 to 14%"."""
    several = list(values)
    low, high = f"{100 * min(several):.0f}", f"{100 * max(several):.0f}"
    return f"{low}%" if low == high else f"{low} to {high}%"


def letter(module: int) -> str:
    """A to Z, then AA, AB, ...: how a module is called on the page."""
    name = chr(ord("A") + module % 26)
    return name if module < 26 else letter(module // 26 - 1) + name


def effect(test: Test) -> str:
    """The effect with its unit of writing: "+12.3 pts", "−0.17"."""
    return f"{signed(100 * test.effect, 1)} pts" if test.percent else signed(test.effect, _digits(test))


def interval(test: Test) -> str:
    """The interval of the effect in brackets; empty where there is none."""
    if test.low is None or test.high is None:
        return ""
    scale, digits = (100.0, 1) if test.percent else (1.0, _digits(test))
    return f"[{number(scale * test.low, digits)}, {number(scale * test.high, digits)}]"


def _digits(test: Test) -> int:
    sizes = [abs(value) for value in (test.effect, test.null_low, test.null_high) if value]
    return 3 if sizes and max(sizes) < 0.1 else 2
