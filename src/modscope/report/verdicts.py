"""What are the four answers, for every network beside the others?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modscope.report.content import Analysis, State, Test, Verdict
from modscope.report.words import count, effect, interval, number, p_text, typeset

WORDS: dict[State, str] = {
    "yes": "Supported",
    "part": "Depends on the null",
    "no": "Not enough evidence",
    "na": "Not tested",
}
QUESTIONS = {
    "function": ("Function", "Do different tasks need different weights?"),
    "structure": ("Structure", "Do the weights fall into groups, more than chance allows?"),
    "importance": ("Importance", "Does the network need these groups?"),
    "bridge": ("Bridge", "Does each group serve one task?"),
}
WIDTH = 240.0


@dataclass(frozen=True)
class Scale:
    """An interval drawn against its null band, as x positions from 0 to `WIDTH`; None where there is no such mark."""

    effect: float
    low: float | None
    high: float | None
    null_low: float | None
    null_high: float | None
    null: float | None
    null_text: str


@dataclass(frozen=True)
class Answer:
    """One of the four answers about one network."""

    run: str
    network: str
    state: State
    word: str
    sentence: str
    reason: str
    effect: str
    unit: str
    interval: str
    p: str
    p_name: str
    n_null: str
    scale: Scale | None


@dataclass(frozen=True)
class Question:
    """One of the four questions, with the answer of every network. `unit` is what all of them measure."""

    key: str
    name: str
    text: str
    unit: str
    answers: tuple[Answer, ...]


def questions(analyses: Sequence[Analysis]) -> tuple[Question, ...]:
    """The four questions; on one line, effects of one unit are drawn to one scale."""
    found = []
    for place, (key, (name, text)) in enumerate(QUESTIONS.items()):
        verdicts = [analysis.verdict[place] for analysis in analyses]
        answers = tuple(_answer(*pair, verdicts) for pair in zip(analyses, verdicts, strict=True))
        units = {answer.unit for answer in answers if answer.scale}
        found.append(Question(key, name, text, units.pop() if len(units) == 1 else "", answers))
    return tuple(found)


def _answer(analysis: Analysis, verdict: Verdict, line: Sequence[Verdict]) -> Answer:
    test = verdict.test
    peers = [other.test for other in line if other.test and test and other.test.unit == test.unit]
    p = None if test is None else (test.p if test.p_adjusted is None else test.p_adjusted)
    return Answer(
        run=analysis.run.id,
        network=analysis.run.title,
        state=verdict.state,
        word=WORDS[verdict.state],
        sentence=typeset(verdict.sentence),
        reason=typeset(verdict.reason),
        effect="" if test is None else effect(test),
        unit="" if test is None else test.unit,
        interval="" if test is None else interval(test),
        p="" if p is None else p_text(p),
        p_name="p" if test is None or test.p_adjusted is None else "corrected p",
        n_null="" if test is None or test.n_null is None else count(test.n_null),
        scale=None if test is None else _scale(test, peers),
    )


def _scale(test: Test, peers: Sequence[Test]) -> Scale:
    values = [value for peer in peers for value in _marks(peer) if value is not None]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 1.0

    def place(value: float | None) -> float | None:
        if value is None:
            return None
        return round(WIDTH * (value - low + margin) / (high - low + 2 * margin), 1)

    at = place(test.effect)
    null_text = "" if test.null_mean is None else number(test.null_mean, 0 if test.null_mean == 0 else 2)
    return Scale(
        at or 0.0, place(test.low), place(test.high), place(test.null_low), place(test.null_high),
        place(test.null_mean), null_text,
    )  # fmt: skip


def _marks(test: Test) -> tuple[float | None, ...]:
    return test.effect, test.low, test.high, test.null_low, test.null_high, test.null_mean
