"""What figures say about a network whose numbers are known."""

from __future__ import annotations

from typing import Any

import pytest

from modscope.records import Record
from modscope.report import about_bridge, about_clusters, about_lesions, about_masks, about_stability, content
from modscope.report.figure import figure_of
from modscope.report.verdicts import WIDTH, questions

ROOMS = (about_masks, about_clusters, about_lesions, about_bridge, about_stability)
KINDS = [kind for room in ROOMS for kind in room.FIGURES]


@pytest.fixture
def network(made_up_single: Record) -> Any:
    def changed(**parts: object) -> content.Analysis:
        return content.Analysis.model_validate(made_up_single.content | parts)

    return changed


def share(layer: str | None, shared: float, random: float | None, **more: object) -> dict:
    band = None if random is None else [random, random - 0.02, random + 0.02]
    row = {"pair": ["left", "right"], "layer": layer, "a": 0.5 - shared / 2, "shared": shared, "b": 0.5 - shared / 2}
    return row | {"kept": 100, "random": band} | more


def test_shared_weights_are_compared_with_chance_layer_by_layer(network):
    rows = [share("a", 0.1, 0.3), share("b", 0.29, 0.3), share("c", 0.5, 0.3), share(None, 0.19, 0.31)]
    said = about_masks.share(network(masks={"share": rows}))
    assert "both need 19%; random masks of the same size share 31%" in said.finding
    assert "In 1 of 3 layers" in said.finding  # b lies inside the band of random masks
    assert [row[3] for row in said.table.rows] == ["10.0%", "29.0%", "50.0%", "19.0%"]


def test_masks_are_judged_on_their_own_and_on_the_other_task(network):
    rows = [
        {"label": "keep left", "kind": "keep", "task": "left", "accuracy": [0.95, 0.12]},
        {"label": "keep right", "kind": "keep", "task": "right", "accuracy": [0.10, 0.93]},
        {"label": "remove left", "kind": "remove", "task": "left", "accuracy": [0.11, 0.69]},
        {"label": "remove right", "kind": "remove", "task": "right", "accuracy": [None, 0.09]},
    ]
    said = about_masks.performance(network(masks={"performance": rows}))
    assert said.finding == (
        "Mask alone: own task 93 to 95%, other task 10 to 12%. Mask removed: own task 9 to 11%, other task 69%."
    )


def test_the_observed_n_cut_is_counted_against_every_null(network):
    test = {"effect": 0.1, "z": -2.0, "p": 0.4}
    nulls = [{"id": "a", "label": "shuffled", "samples": [1.0, 2.0, 3.0, 3.0], "test": test}]
    said = about_clusters.ncut(network(tests={"ncut": {"observed": 2.0, "k": 4, "nulls": nulls}}))
    assert said.finding == "n-cut 2.00. Shuffled: below 2 of 4 (p\u00a00.400)."
    assert said.table.rows[0][:4] == ("shuffled", "2.000", "2.250", "−2.0")


def gap_of(gap: float, p_adjusted: float) -> dict:
    return {"gap": gap, "low": -0.1, "high": 0.1, "min": -0.2, "max": 0.2, "p": 0.02, "p_adjusted": p_adjusted}


def test_a_sweep_names_the_numbers_that_hold_after_correction_and_the_widest_gap(network):
    points = [{"k": k, "ncut": float(k), "stability": 0.5} for k in (2, 4, 8)]
    bands = [
        ("shuffled", 0.02, [gap_of(-0.1, 0.3), gap_of(-0.4, 0.02), gap_of(-0.2, 0.04)]),
        ("scaled", 0.02, [gap_of(-0.3, 0.02), gap_of(-0.4, 0.02), gap_of(-0.5, 0.02)]),
        ("rewired", 0.6, [gap_of(0.1, 0.6), gap_of(0.3, 1.0), gap_of(-0.05, 0.8)]),
    ]
    bands = [{"id": a, "label": a, "p_in_all": p, "n_null": 49, "gaps": gaps} for a, p, gaps in bands]
    said = about_clusters.sweep(network(tests={"sweep": {"points": points, "bands": bands}}))
    assert said.finding == (
        "Below shuffled: at 4 and 8 (p\u00a00.020 in all); the gap is widest at 4. "
        "Below scaled: at every number tried (p\u00a00.020 in all); the gap is widest at 8. "
        "Not below rewired: at none of 2, 4 and 8 (p\u00a00.600 in all)."
    )
    assert said.table.rows[1] == (
        "shuffled", "4", "4.000", "−0.400", "−0.100 to 0.100", "−0.200 to 0.200", "–", "0.020", "0.020", "0.50",
    )  # fmt: skip
    assert about_clusters.sweep(network(tests={"sweep": {"why": "Not run."}})).missing == "Not run."
    assert "not tried" in about_clusters.sweep(network(tests={"ncut": None})).missing


def repeated(source: str, values: list[float], chance: float | None = 0.0) -> dict:
    return {"source": source, "measure": "adjusted Rand index", "values": values, "chance": chance}


def test_repeats_name_what_agrees_most_and_least_and_what_was_done_once(network):
    def said(*repeats: dict) -> Any:
        return about_stability.repeats(network(stability={"repeats": list(repeats)}))

    two = said(repeated("2 modules", [1.0, 0.9]), repeated("8 modules", [0.3, 0.1, 0.2]), repeated("mask", [], None))
    assert two.finding == "Most alike: 2 modules (0.95); least: 8 modules (0.20)."
    assert two.warning == "One seed only: agreement over seeds is unknown. This holds for mask."
    assert two.table.rows[1] == ("8 modules", "adjusted Rand index", "0.20", "0.10", "0.30", "0.00", "3")
    assert two.table.rows[2][2:] == ("–", "–", "–", "–", "0")
    assert said(repeated("a", [0.9]), repeated("b", [0.85])).finding.startswith("All repeat: the least are b with 0.85")
    assert said(repeated("a", [0.5, 0.7])).finding == "a: 0.60 on average."
    assert said(repeated("a", [])).missing == "One seed only: agreement over seeds is unknown."
    assert about_stability.repeats(network(stability=None)).missing == "Nothing was repeated in this run."


def test_a_module_that_is_a_layer_is_flagged(network):
    modules = [{"n": 10, "by_layer": [0, 9, 1, 0, 0]}, *({"n": 4, "by_layer": [1, 1, 1, 1, 0]} for _ in range(3))]
    said = about_clusters.composition(network(modules=modules))
    assert said.warning.startswith("90% of module A is in one layer (0)")
    level = [{"n": 10, "by_layer": [0, 8, 2, 0, 0]}, *modules[1:]]
    assert about_clusters.composition(network(modules=level)).warning == ""


def test_weight_inside_modules_is_a_share_of_what_is_drawn(network):
    layers = [{"id": "a", "kind": "input", "n": 2}, {"id": "b", "kind": "output", "n": 2}]
    units = {"layer": [0, 0, 1, 1], "index": [0, 1, 0, 1], "module": [0, 1, 0, -1]}
    edges = {"source": [0, 1, 1], "target": [2, 2, 3], "weight": [3.0, 0.5, 0.5], "n_total": 4}
    parts = {"layers": layers, "modules": [{"n": 2, "by_layer": [1, 1]}] * 2, "lesions": None, "bridge": None}
    said = about_clusters.matrix(network(units=units, edges=edges, **parts))
    assert "75% by size join units of one module" in said.finding


def lesion(module: int, layer: str | None, task: str, drop: float, p: float) -> dict:
    return {"module": module, "layer": layer, "n_units": 3, "task": task, "drop": drop, "p": p, "p_adjusted": p}


def test_parts_that_cost_one_task_only_are_counted_without_whole_modules(network):
    rows = [
        lesion(0, "0", "left", 0.4, 0.01), lesion(0, "0", "right", 0.0, 0.9),
        lesion(1, "0", "left", 0.0, 0.9), lesion(1, "0", "right", 0.3, 0.05),
        lesion(2, "0", "left", 0.3, 0.01), lesion(2, "0", "right", 0.3, 0.01),
        lesion(0, None, "left", 0.5, 0.01), lesion(0, None, "right", 0.1, 0.9),
    ]  # fmt: skip
    analysis = network(lesions={"ablation": "zero", "rows": rows})
    assert about_lesions.dissociation(analysis).finding == (
        "1 part cost only left digit, 1 only right digit, 1 both (corrected p at most 0.05)."
    )
    assert about_lesions.lesions(analysis).finding.startswith("5 of 8 tests find a larger loss")
    assert "without module A, left digit loses 50.0 points." in about_lesions.lesions(analysis).finding


def test_preferences_are_read_under_the_strictest_control(network):
    controls = [{"id": "raw", "label": "nothing"}, {"id": "full", "label": "layer"}]
    cells = [
        {"control": c, "task": "left", "module": m, "log_odds": v, "p_adjusted": p}
        for c, p in (("raw", 0.01), ("full", 0.04))
        for m, v in enumerate([1.0, -1.0])
    ] + [{"control": "full", "task": "right", "module": 0, "log_odds": 2.0, "p_adjusted": 0.2}]
    said = about_bridge.alignment(network(bridge={"controls": controls, "cells": cells}))
    assert said.finding == (
        "With layer held fixed: left digit uses more of A, less of B; right digit prefers no module beyond chance."
    )


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.id)
def test_a_part_that_is_missing_says_why(network, kind):
    why = "It was not asked for."
    parts = {name: {"why": why} for name in ("units", "edges", "masks", "tests", "lesions", "bridge", "stability")}
    analysis = network(**parts, modules=[], layers=[])
    figure = figure_of(kind, "1.1", [analysis], run="")
    assert figure.missing
    assert figure.missing == why or kind.id in ("network", "composition")
    assert figure.findings == ()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.id)
def test_every_figure_has_a_finding_a_table_and_a_description_with_its_numbers(network, kind):
    figure = figure_of(kind, "1.1", [network()], run="pruned")
    assert figure.findings[0].text.endswith(".")
    assert all(len(row) == len(figure.table.columns) for row in figure.table.rows)
    assert figure.table.rows[0][-1] in figure.description


def test_networks_side_by_side_are_named_in_findings_and_table(made_up_collection):
    analyses = content.Collection.model_validate(made_up_collection.content).records
    kind = next(kind for kind in KINDS if kind.id == "overlap")
    figure = figure_of(kind, "3.3", analyses, run="")
    assert [finding.network for finding in figure.findings] == ["Untrained", "Dense", "Pruned"]
    assert {row[0] for row in figure.table.rows} == {"Dense", "Pruned"}  # the untrained one has no masks
    assert figure.findings[0].text == analyses[0].masks.why


def test_effects_of_one_unit_share_a_scale_over_networks(made_up_collection):
    analyses = content.Collection.model_validate(made_up_collection.content).records
    answers = next(question for question in questions(analyses) if question.key == "structure").answers
    zeros = {answer.scale.null for answer in answers}
    assert len(zeros) == 1
    effects = [analysis.verdict[1].test.effect for analysis in analyses]
    places = [answer.scale.effect for answer in answers]
    slope = (places[2] - places[0]) / (effects[2] - effects[0])
    assert places[1] == pytest.approx(places[0] + slope * (effects[1] - effects[0]), abs=0.15)
    assert all(0 <= place <= WIDTH for place in places)


def test_an_answer_without_a_test_has_words_and_no_numbers(made_up_collection):
    analyses = content.Collection.model_validate(made_up_collection.content).records
    answer = questions(analyses)[0].answers[0]
    assert (answer.word, answer.effect, answer.p, answer.scale) == ("Not tested", "", "", None)
