"""What do the numbers say? Four lines, each with one state, by fixed rules.

`yes`: every required test holds at the level. `part`: only the weaker null is passed, or the stricter one keeps less
than half of the effect. `no`: anything else. `na`: not run, or undefined, with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from modscope.alignment import Alignment
from modscope.lesions.importance import Importance
from modscope.masks.dissociation import Dissociation
from modscope.masks.specialization import Specialization
from modscope.partition.clusterability import STRICTER, WEAKER, Clusterability
from modscope.statistics import Comparison, holm

State: TypeAlias = Literal["yes", "part", "no", "na"]
Question: TypeAlias = Literal["function", "structure", "importance", "bridge"]

LEVEL = 0.05
NULL_LABELS = {
    "shuffle_weights": "weights shuffled within each layer",
    "keep_unit_scale": "weights shuffled, every unit keeping its scale",
    "keep_unit_scale_by_size": "weights shuffled among weights of like size, every unit keeping its scale",
    "keep_unit_scale_rewired": "connections rewired, every unit keeping its scale and their number",
}
NO_TASKS = "No task was given."


@dataclass(frozen=True)
class Verdict:
    """One of the four answers.

    Args:
        key: The question.
        state: The answer.
        sentence: The answer in one line.
        reason: Why, with numbers.
        test: The weakest required test; None where nothing was measured.
    """

    key: Question
    state: State
    sentence: str
    reason: str
    test: Comparison | None = None

    def __str__(self) -> str:
        return f"{self.key:<11} {self.state:<5} {self.sentence} {self.reason}"


def function_verdict(specialization: Specialization | None, failed: Mapping[str, str] | None = None) -> Verdict:
    """Do tasks of different function use different weights?

    Args:
        specialization: What masks and inverse masks can do.
        failed: Task -> why its mask says nothing: it is empty, or works as well on random weights.

    Required, for every pair of different function: a double dissociation (Holm-corrected over the pairs); and, with
    two seeds a task, p_specialize's interval above .5.
    """
    claim = "that tasks of different function use different weights"
    if specialization is None or not specialization.dissociations:
        why = NO_TASKS if specialization is None else _why_no_pairs(specialization.tasks)
        return _not_tested("function", "there are no two tasks of different function to compare", why)
    if failed:
        reasons = " ".join(_sentence(f"{task}: {reason}") for task, reason in failed.items())
        return _not_tested("function", "the masks say nothing about this network", reasons)
    score, tests = specialization.specialize, specialization.dissociations
    if score.value is None and not _is_one_seed(specialization):
        return _not_tested("function", "the masks say nothing about this network", _sentence(score.reason))
    adjusted = holm([test.p_value for test in tests])
    weakest = max(zip(adjusted, tests, strict=True), key=lambda pair: (pair[0], -pair[1].observed))
    told_apart = all(p <= LEVEL and test.observed > 0 for p, test in zip(adjusted, tests, strict=True))
    has_own_weights = score.interval is None or score.interval[0] > 0.5
    reason = _dissociation_in_words(*weakest) + (
        f" p_specialize {score.value:.2f}, 95 % interval {score.interval[0]:.2f} to {score.interval[1]:.2f}."
        if score.value is not None and score.interval is not None
        else f" p_specialize is unknown: {score.reason}."
    )
    test = _comparison(weakest[1])
    if told_apart and has_own_weights:
        return Verdict("function", "yes", "Tasks of different function use different weights.", reason, test)
    return Verdict("function", "no", f"Not enough evidence {claim}.", reason, test)


def structure_verdict(clusterability: Clusterability) -> Verdict:
    """Do the units fall into modules, more than chance allows?"""
    state = clusterability.verdict
    sentences: dict[State, str] = {
        "yes": "The units fall into modules, more than chance and unit scale explain.",
        "part": "The units look modular, but differences in their scale can explain it.",
        "no": "Not enough evidence that the units fall into modules.",
        "na": "Not tested: the null models that the answer needs were not run.",
    }
    test = clusterability.get(STRICTER) or clusterability.get(WEAKER)
    reason = "; ".join(_n_cut_in_words(test) for test in clusterability.values())
    if state == "na":
        reason = clusterability.sentence
    return Verdict("structure", state, sentences[state], _sentence(reason), test)


def importance_verdict(importance: Importance | None, why: str = NO_TASKS) -> Verdict:
    """Does the network need its modules, more than random units of the same layers?"""
    if importance is None or importance.combined is None:
        return _not_tested("importance", "no module could be silenced", why)
    test = importance.combined
    if test.floor > LEVEL:
        return _not_tested("importance", "too few random lesions", f"{test.n_samples} drawn, at least 19 needed.")
    n_found = int(importance.is_important.sum())
    reason = (
        f"Together p = {test.p_value:.3f} against {test.n_samples} random partitions; "
        f"{n_found} of {importance.is_important.size} single tests hold after correction."
    )
    if test.p_value <= LEVEL:
        return Verdict("importance", "yes", "The network needs its modules more than random units.", reason, test)
    sentence = "Not enough evidence that the network needs its modules more than random units."
    return Verdict("importance", "no", sentence, reason, test)


def bridge_verdict(alignment: Alignment | None, why: str = NO_TASKS) -> Verdict:
    """Do masks and modules agree, beyond what layer, degree and weight size explain?"""
    if alignment is None:
        return _not_tested("bridge", "there are no masks to compare the modules with", why)
    raw, controlled = alignment.raw, alignment.controlled
    state = two_nulls(raw, controlled)
    sentences: dict[State, str] = {
        "yes": "Masks and modules agree, beyond what layer, degree and weight size explain.",
        "part": "Masks and modules agree, but layer, degree or weight size can explain most of it.",
        "no": "Not enough evidence that masks and modules agree.",
        "na": f"Not tested: {raw.n_samples} random labellings are too few.",
    }
    reason = f"p = {raw.p_value:.3f} with layers held fixed; p = {controlled.p_value:.3f} with degree and size as well."
    return Verdict("bridge", state, sentences[state], reason, controlled)


def two_nulls(weaker: Comparison, stricter: Comparison) -> State:
    """The state of a claim that is tested against a weaker and a stricter null model."""
    if max(stricter.floor, weaker.floor) > LEVEL:
        return "na"
    if weaker.p_value > LEVEL:
        return "no"
    if stricter.p_value > LEVEL or excess(stricter) < excess(weaker) / 2:
        return "part"
    return "yes"


def null_label(name: str) -> str:
    """How readers know a null model."""
    return NULL_LABELS.get(name, name.replace("_", " "))


def excess(test: Comparison) -> float:
    """Observed value beyond the null's mean, in the direction of the claim, in the statistic's own unit."""
    difference = test.observed - float(test.null_samples.mean())
    return -difference if test.alternative == "less" else difference


def _why_no_pairs(tasks: tuple[str, ...]) -> str:
    if len(tasks) == 1:
        return f"{tasks[0]} was the only task."
    return f"{', '.join(tasks)} have one function."


def _is_one_seed(specialization: Specialization) -> bool:
    """Whether p_specialize is undefined only because no task has a second mask."""
    overlap = specialization.overlap
    return overlap is not None and all(pair.total.n_kept and pair.total.ceiling is None for pair in overlap.pairs)


def _comparison(test: Dissociation) -> Comparison:
    samples = np.array(test.null_samples)
    return Comparison(test.observed, samples, "greater", "random weights of the same sizes", looks=(len(samples),))


def _dissociation_in_words(p: float, test: Dissociation) -> str:
    (own_first, own_second), (other_first, other_second) = test.own_loss, test.other_loss
    return (
        f"Without its mask's weights, {test.first} loses {own_first:.0%} and {test.second} {other_first:.0%}; without "
        f"those of {test.second}, {own_second:.0%} and {other_second:.0%} (p = {p:.3f})."
    )


def _n_cut_in_words(test: Comparison) -> str:
    mean, networks = float(test.null_samples.mean()), f"networks with {null_label(test.null_name)}"
    if mean == 0:  # nothing is cut where every cluster is a component
        return f"n-cut {test.observed:.3g} beside 0 of {networks} (p = {test.p_value:.3f})"
    side = "below" if test.observed <= mean else "above"
    return f"n-cut {abs(test.observed / mean - 1):.1%} {side} that of {networks} (p = {test.p_value:.3f})"


def _not_tested(key: Question, what: str, reason: str) -> Verdict:
    return Verdict(key, "na", f"Not tested: {what}.", reason)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."
