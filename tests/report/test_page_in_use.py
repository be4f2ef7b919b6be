"""What a reader can do with the page, and that nothing is cut or covered at any width."""

from __future__ import annotations

from pathlib import Path

import pytest

from modscope.records import Record
from modscope.report import write_report

# Texts that leave their drawing, cover one another or are too small; targets that are too small to hit.
FAULTS = r"""
(() => {
  const found = [], boxOf = element => element.getBoundingClientRect(), page = document.documentElement;
  if (page.scrollWidth > innerWidth) found.push(`the page is ${page.scrollWidth} wide`);
  for (const svg of document.querySelectorAll(".plot svg, .panel svg")) {
    const box = boxOf(svg), zoom = box.width / svg.viewBox.baseVal.width;
    if (!box.width) continue;
    const name = (svg.closest(".fig") || {id: "panel"}).id;
    const texts = [...svg.querySelectorAll("text")].map(text => ({
      words: text.textContent, ...boxOf(text).toJSON(), tall: parseFloat(getComputedStyle(text).fontSize) * zoom,
      isTurned: /rotate/.test(text.getAttribute("transform")),
    }));
    texts.forEach((a, i) => {
      const leaves = a.left < box.left - 1.5 || a.right > box.right + 1.5;
      if (leaves || a.top < box.top - 2 || a.bottom > box.bottom + 2) found.push(`${name}: "${a.words}" leaves`);
      if (a.tall < 10.5) found.push(`${name}: "${a.words}" is ${a.tall} px tall`);
      for (const b of texts.slice(i + 1)) {
        const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (wide > 1.5 && high > 3 && !a.isTurned && !b.isTurned) found.push(`${name}: "${a.words}" on "${b.words}"`);
      }
    });
  }
  for (const target of document.querySelectorAll("button, input, select")) {
    const box = boxOf(target);
    if (box.width && box.height < 20) found.push(`target "${target.textContent}" is ${box.height} px high`);
  }
  return found;
})()
"""
# Networks at the edge of what the schema allows: each replaces some parts of an ordinary one.
ZERO = {"effect": 0.0, "z": None, "p": 1.0}
GAP = {"gap": 0.0, "low": 0.0, "high": 0.0, "min": 0.0, "max": 0.0, "z": None, "p": 1.0, "p_adjusted": 1.0}


def sweep_of(numbers: list[int], gaps: list[dict]) -> dict:
    points = [{"k": k, "ncut": 1234.5 * k} for k in numbers]
    return {"points": points, "bands": [{"id": "a", "label": "a" * 90, "p_in_all": 1.0, "n_null": 1, "gaps": gaps}]}


EDGES = {
    "no modules": {"modules": [], "units": None, "edges": None, "lesions": None, "bridge": None},
    "one layer": {
        "layers": [{"id": "only", "kind": "hidden", "n": 2}], "modules": [{"n": 2, "by_layer": [2]}],
        "units": {"layer": [0, 0], "index": [0, 1], "module": [0, 0]}, "edges": None, "lesions": None, "bridge": None,
    },
    "no layers": {"layers": [], "modules": [], "units": None, "edges": None, "lesions": None, "bridge": None},
    "units without edges": {"edges": {"source": [], "target": [], "weight": [], "n_total": 0}},
    "no units": {"units": {"why": "too many"}, "edges": {"why": "too many"}},
    "nothing kept": {
        "masks": {
            "density": [{"task": "left", "layer": None, "kept": 0, "n": 0}],
            "share": [{"pair": ["left", "right"], "layer": None, "a": 0, "shared": 0, "b": 0, "kept": 0}],
            "performance": [{"label": "keep", "kind": "keep", "task": "left", "accuracy": [None, None]}],
        }
    },
    "constant null": {
        "tests": {"ncut": {"observed": 0, "k": 1, "nulls": [{"id": "a", "label": "a", "samples": [0], "test": ZERO}]}}
    },
    "no null samples": {
        "tests": {"ncut": {"observed": 3.0, "k": 1, "nulls": [{"id": "a", "label": "a", "samples": [], "test": ZERO}]}}
    },
    "one number in the sweep": {"tests": {"sweep": sweep_of([4], [GAP])}},
    "a sweep without a null": {"tests": {"sweep": {"points": [{"k": 4, "ncut": 0.0}], "bands": []}}},
    "a sweep over many numbers": {"tests": {"sweep": sweep_of(list(range(2, 60)), [GAP | {"gap": -0.1}] * 58)}},
    "repeats without a pair": {"stability": {"repeats": [{"source": "a", "measure": "b"}]}},
    "repeats below zero": {
        "stability": {"repeats": [{"source": "a" * 300, "measure": "b", "values": [-0.4] * 300, "chance": None}]}
    },
    "bare lesions": {
        "lesions": {"ablation": "zero", "rows": [{"module": 0, "n_units": 0, "task": "left", "drop": -0.2}]}
    },
    "no lesions": {"lesions": {"ablation": "zero", "rows": []}},
    "undefined odds": {
        "bridge": {
            "controls": [{"id": "raw", "label": "nothing"}],
            "cells": [{"control": "raw", "task": "left", "module": 0, "log_odds": None}],
            "agreement": [{"control": "raw", "test": ZERO}],
        }
    },
    "empty bridge": {"bridge": {"controls": [], "cells": []}},
    "one task": {
        "tasks": [{"id": "left", "label": "left"}], "masks": None, "bridge": None,
        "lesions": {"ablation": "zero", "rows": [{"module": 0, "layer": "2", "n_units": 1, "task": "left", "drop": 0}]},
    },
    "no tasks": {"tasks": [], "masks": None, "bridge": None, "lesions": None},
    "chance is one": {"tasks": [{"id": t, "label": t, "chance": 1.0} for t in ("left", "right")]},
}  # fmt: skip
DIMMED = (
    """[...document.querySelectorAll('.fig:not([hidden]) [data-m]')].filter(mark => mark.classList.contains('dim'))"""
)


@pytest.fixture(scope="module")
def page(made_up_collection, tmp_path_factory) -> Path:
    return write_report(made_up_collection, tmp_path_factory.mktemp("page") / "report.html")


@pytest.mark.parametrize("width", [360, 390, 640, 820, 1120, 1360, 1920])
def test_nothing_is_cut_covered_or_too_small(browser, page, made_up_single, width):
    alone = write_report(made_up_single, page.with_name("single.html"))
    for shown in (page, alone):
        browser.open(shown, width=width)
        assert browser.ask(FAULTS) == []
        assert browser.problems() == []


def test_dark_and_light_differ_in_colour_and_in_nothing_else(browser, page):
    grounds, shapes = [], []
    for dark in (False, True):
        browser.open(page, dark=dark)
        grounds.append(browser.ask("getComputedStyle(document.body).backgroundColor"))
        shapes.append(browser.ask("document.querySelectorAll('.plot svg *').length"))
    assert grounds == ["rgb(251, 251, 249)", "rgb(20, 23, 26)"]
    assert shapes[0] == shapes[1] > 1000


def test_a_chosen_module_is_kept_in_all_figures_until_it_is_released(browser, page):
    browser.open(page)
    browser.ask("document.querySelector('[data-chip=\"1\"]').click()")
    dimmed = browser.ask(f"{DIMMED}.map(mark => mark.dataset.m)")
    assert dimmed
    assert set(dimmed) == {
        "2.0",
        "2.2",
        "2.3",
        "2.-1",
    }  # other modules of this network; other networks stay as they are
    assert browser.ask("document.querySelector('#panel h3').textContent") == "BModule B"
    assert "m=B" in browser.ask("location.hash")
    browser.press("Escape")
    assert browser.ask(f"{DIMMED}.length") == 0
    assert browser.ask("location.hash") == ""
    assert browser.problems() == []


def test_another_network_fills_every_figure_of_its_own(browser, page):
    browser.open(page)
    browser.ask("document.querySelector('.card[data-choose=dense]').click()")
    shown = browser.ask(
        "[...document.querySelectorAll('.fig:not([hidden])')].map(figure => figure.dataset.run).filter(Boolean)"
    )
    assert set(shown) == {"dense"}
    assert browser.ask("document.querySelectorAll('.fig:not([hidden]) .plot:empty').length") == 0
    assert browser.ask(
        "[...document.querySelectorAll('[data-column].chosen')].every(c => c.dataset.column === 'dense')"
    )


def test_search_finds_units_modules_and_figures_and_says_when_it_finds_nothing(browser, page):
    browser.open(page)
    browser.press("/")
    assert browser.ask("document.activeElement.id") == "search"
    hits = "[...document.querySelectorAll('#hits li')].map(hit => hit.textContent)"
    for typed, expected in (("2:5", "2:5"), ("module c", "Module C"), ("n-cut", "Observed n-cut"), ("dense", "Dense")):
        browser.ask(
            f"(() => {{ const s = document.querySelector('#search'); s.value = {typed!r}; search(s.value); }})()"
        )
        assert any(expected in hit for hit in browser.ask(hits)), typed
    browser.ask("search('no such thing')")
    assert browser.ask(hits)[0].startswith("Nothing matches. Try")
    browser.ask("(() => { const s = document.querySelector('#search'); s.value = '2:57'; search(s.value); })()")
    browser.press("Enter")
    assert "u=2%3A57" in browser.ask("location.hash")
    assert browser.ask("document.querySelector('.unit-ring').getAttribute('visibility')") == "visible"


def test_arrow_keys_walk_from_unit_to_unit_and_layer_to_layer(browser, page):
    browser.open(page, fragment="#u=0%3A5")
    browser.ask("document.querySelector('#network .fig:not([hidden]) .plot svg').focus()")
    unit = "unitsOf(current())[state.unit]"
    assert browser.ask(f"{unit}.name") == "0:5"
    browser.press("ArrowRight")
    assert browser.ask(f"{unit}.layer") == 2
    heights = []
    for key in ("ArrowUp", "ArrowDown"):
        browser.press(key)
        assert browser.ask(f"{unit}.layer") == 2
        heights.append(browser.ask("current().places[state.unit].y"))
    assert heights[0] < heights[1]


def test_tables_are_sorted_by_a_click_on_their_head(browser, page):
    browser.open(page)
    cells = "[...document.querySelectorAll('#f-lesions-pruned tbody td:nth-child(5)')]"
    column = f"{cells}.map(cell => parseFloat(cell.textContent))"
    click = "document.querySelectorAll('#f-lesions-pruned th button')[4].click()"
    before = browser.ask(column)
    browser.ask(click)
    assert browser.ask(column) == sorted(before)
    browser.ask(click)
    assert browser.ask(column) == sorted(before, reverse=True)


def test_a_cell_that_looks_like_a_formula_is_text_in_the_csv(browser, page):
    browser.open(page)
    cells = ['=cmd|" /C calc"!A0', "+1+2", "@SUM(A1)", "−0.38", "-x", "+0.17", 'say "hi"']
    assert browser.ask(f"{cells!r}.map(csvCell)") == [
        '"\'=cmd|"" /C calc""!A0"', '"\'+1+2"', '"\'@SUM(A1)"', '"-0.38"', '"\'-x"', '"+0.17"', '"say ""hi"""',
    ]  # fmt: skip


def test_the_control_of_the_bridge_changes_its_numbers(browser, page):
    browser.open(page)
    numbers = "[...document.querySelectorAll('#f-alignment .plot text.t12')].map(cell => cell.textContent)"
    strict = browser.ask(numbers)
    browser.ask("document.querySelector('[data-control=raw]').click()")
    assert browser.ask(numbers) != strict
    assert "ctl=raw" in browser.ask("location.hash")


def test_a_drawing_is_saved_with_its_colours(browser, page):
    browser.open(page)
    svg = browser.ask("svgOf(document.querySelector('#f-share-pruned .plot svg'))")
    assert svg.startswith("<svg")
    assert "var(" not in svg
    assert 'xmlns="http://www.w3.org/2000/svg"' in svg


def test_a_figure_that_cannot_be_drawn_leaves_the_others(browser, page):
    browser.open(page)
    browser.ask("(() => { current().masks.share[0].pair = null; redraw({now: true}); })()")
    assert "This figure could not be drawn." in browser.ask(
        "document.querySelector('#f-share-pruned .plot').textContent"
    )
    assert browser.ask("document.querySelectorAll('#f-density-pruned .plot svg').length") == 1


def test_paper_gets_drawings_of_its_own_width(browser, page):
    browser.open(page)
    browser.ask("dispatchEvent(new Event('beforeprint'))")
    widths = browser.ask(
        "[...document.querySelectorAll('.fig:not([hidden]) .plot svg')].map(svg => svg.width.baseVal.value)"
    )
    assert max(widths) <= 700
    browser.ask("dispatchEvent(new Event('afterprint'))")


@pytest.mark.parametrize("edge", EDGES)
def test_a_network_at_the_edge_is_drawn_without_an_error(browser, made_up_single, tmp_path, edge):
    record = Record("analysis", edge, made_up_single.content | EDGES[edge])
    browser.open(write_report(record, tmp_path / "report.html"))
    assert browser.problems() == []
    assert "could not be drawn" not in browser.ask("document.querySelector('main').textContent")
    assert "NaN" not in browser.ask("document.querySelector('main').outerHTML")
    assert "Infinity" not in browser.ask("document.querySelector('main').outerHTML")
    assert browser.ask(FAULTS) == []
