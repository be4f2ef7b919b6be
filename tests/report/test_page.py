"""The page as a file: the same bytes, readable without script, one policy, colours that can be told apart."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modscope.errors import RecordError, StudyError
from modscope.records import Record
from modscope.report import page, write_report

ASSETS = Path(page.__file__).parent / "assets"
GAP = {"gap": 0.0, "low": 0.0, "high": 0.0, "min": 0.0, "max": 0.0, "p": 1.0, "p_adjusted": 1.0}
# Machado, Oliveira & Fernandes 2009: full protanopia, deuteranopia, tritanopia, in linear RGB.
VISION = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


class FinishedRun:
    def __init__(self, record: Record) -> None:
        self._record = record

    def record(self) -> Record:
        return self._record


def test_two_renderings_have_the_same_bytes(made_up_collection, tmp_path):
    first, second = (write_report(made_up_collection, tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second


def test_the_bytes_are_the_same_in_another_process(made_up_collection, tmp_path):
    record = made_up_collection.save(tmp_path / "record.json")
    program = (
        "import sys; from modscope.records import Record; from modscope.report import write_report;"
        "write_report(Record.load(sys.argv[1]), sys.argv[2])"
    )
    other = tmp_path / "other.html"
    subprocess.run([sys.executable, "-c", program, str(record), str(other)], check=True, env={"PYTHONHASHSEED": "7"})
    assert other.read_bytes() == write_report(made_up_collection, tmp_path / "here.html").read_bytes()


def test_a_run_a_record_and_records_side_by_side_all_make_a_page(made_up_single, tmp_path):
    alone = write_report(made_up_single, tmp_path / "record.html").read_bytes()
    assert write_report(FinishedRun(made_up_single), tmp_path / "run.html").read_bytes() == alone
    both = write_report([made_up_single, FinishedRun(made_up_single)], tmp_path / "both.html").read_text()
    assert re.findall(r'<button type="button" data-choose="([\w-]+)"', both)[:2] == ["pruned", "pruned-2"]


def test_answers_findings_and_tables_are_readable_without_script(made_up_collection, tmp_path):
    text = write_report(made_up_collection, tmp_path / "report.html").read_text()
    static = re.sub(r"(?s)<(script|style).*?</\1>", "", text)
    for words in ("Supported", "Depends on the null", "Not enough evidence", "Not tested"):
        assert f"<b>{words}</b>" in static
    assert "failed" not in static.lower()
    for analysis in made_up_collection.content["records"]:
        assert all(verdict["sentence"] in static for verdict in analysis["verdict"])
    assert static.count("<table>") == static.count("<details")
    drop = made_up_collection.content["records"][2]["lesions"]["rows"][0]["drop"]
    assert f'<td class="n">{100 * drop:.1f}</td>' in static


def test_a_part_that_was_not_measured_says_so_and_names_the_code(made_up_single, tmp_path):
    masks = made_up_single.content["masks"] | {"density": []}
    text = write_report(
        Record("analysis", "no masks", made_up_single.content | {"masks": masks, "bridge": {"why": "Left out."}}),
        tmp_path / "report.html",
    ).read_text(encoding="utf-8")
    figure = re.search(r'(?s)<figure[^>]*id="f-density-pruned".*?</figure>', text).group()
    assert "<b>Masks were not measured in this run.</b><code>ms.learn_masks(" in figure
    bridge = re.search(r'(?s)<section id="bridge".*?</section>', text).group()
    assert "<b>Left out.</b>" in bridge
    assert "<code>ms.alignment(mask_set, wiring, partition)</code>" in bridge
    assert "<figure" not in bridge  # one reason for all figures stands once


def test_the_policy_lets_our_style_and_script_pass_and_nothing_else(made_up_collection, tmp_path):
    text = write_report(made_up_collection, tmp_path / "report.html").read_text(encoding="utf-8")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text).group(1)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    style = re.search(r"(?s)<style>(.*?)</style>", text).group(1)
    script = re.search(r"(?s)<script>(.*?)</script>", text).group(1)
    for body, name in ((style, "style-src"), (script, "script-src")):
        digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
        assert rules[name] == f"'sha256-{digest}'"
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert "unsafe" not in policy
    assert not re.findall(r'(?:src|href)="(?!#|data:|https://arxiv)[^"]*"', text)


def test_the_data_of_the_page_cannot_leave_its_island(made_up_single, tmp_path):
    content = made_up_single.content | {"run": {"id": "</script>\u2028<!--", "title": "]]>&'\""}}
    text = write_report(Record("analysis", "x", content), tmp_path / "report.html").read_text(encoding="utf-8")
    island = re.search(r'(?s)<script type="application/json" id="data">(.*?)</script>', text).group(1)
    assert json.loads(island)["runs"][0]["id"] == "</script>\u2028<!--"
    assert not set("<>&'\u2028\u2029") & set(island)


def test_style_and_script_stay_small():
    size = sum(path.stat().st_size for path in ASSETS.iterdir() if path.suffix in (".css", ".js"))
    assert size < 300_000


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ([], StudyError, "nothing to report"),
        ([1], StudyError, "got int"),
        ({"kind": "analysis"}, StudyError, "got dict"),
        ("record.json", StudyError, "got str"),
        (Record("mask", "a mask", {}), RecordError, "kind 'mask'"),
        (Record("analysis", "empty", {}), RecordError, r"records\.0\.run: Field required"),
        (Record("collection", "empty", {"title": "t", "records": []}), RecordError, "records"),
    ],
)
def test_what_is_no_result_is_refused_in_words(tmp_path, given, error, words):
    with pytest.raises(error, match=words):
        write_report(given, tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("part", "value", "words"),
    [
        ("verdict", [], "verdict"),
        ("masks", {"shares": []}, r"masks\..*shares"),
        ("units", {"layer": [0], "index": [0], "module": [9]}, r"units\.module must lie between -1 and 3"),
        ("units", {"layer": [0], "index": [], "module": [0]}, "one length"),
        ("units", None, "edges name units"),
        ("edges", {"source": [10**6], "target": [0], "weight": [1.0], "n_total": 1}, r"edges\.source"),
        ("tasks", [{"id": "left", "label": "left"}], "performance needs one accuracy per task"),
        ("modules", [], "name a module"),
        ("run", {"id": "a", "title": 3}, r"run\.title"),
        (
            "tests",
            {"sweep": {"points": [], "bands": [{"id": "a", "label": "a", "p_in_all": 1, "n_null": 1, "gaps": [GAP]}]}},
            r"one gap per point \(0\)",
        ),
    ],
)
def test_a_record_whose_parts_do_not_fit_is_refused_and_the_part_named(tmp_path, made_up_single, part, value, words):
    record = Record("analysis", "odd", made_up_single.content | {part: value})
    with pytest.raises(RecordError, match=words):
        write_report(record, tmp_path / "report.html")


def test_a_page_cannot_be_written_over_a_folder_or_into_nowhere(made_up_single, tmp_path):
    with pytest.raises(RecordError, match="it is a folder"):
        write_report(made_up_single, tmp_path)
    with pytest.raises(RecordError, match="No such file or directory"):
        write_report(made_up_single, tmp_path / "gone" / "report.html")


def test_only_the_strongest_weights_and_a_thousand_null_samples_are_drawn(made_up_single, tmp_path):
    units = made_up_single.content["units"]
    n = len(units["layer"])
    edges = {
        "source": [0] * 5000,
        "target": [n - 1] * 5000,
        "weight": [float(i) for i in range(1, 5001)],
        "n_total": 5000,
    }
    null = made_up_single.content["tests"]["ncut"]["nulls"][0] | {"samples": [float(i) for i in range(4001)]}
    tests = {"ncut": {"observed": 1.0, "k": 4, "nulls": [null]}}
    record = Record("analysis", "large", made_up_single.content | {"edges": edges, "tests": tests})
    text = write_report(record, tmp_path / "report.html").read_text(encoding="utf-8")
    island = json.loads(re.search(r'(?s)id="data">(.*?)</script>', text).group(1))
    drawn, samples = island["runs"][0]["edges"]["weight"], island["runs"][0]["ncut"]["nulls"][0]["samples"]
    assert (len(drawn), min(drawn), max(drawn)) == (1800, 3201.0, 5000.0)
    assert (len(samples), samples[0], samples[-1]) == (1000, 0.0, 4000.0)
    assert np.median(samples) == pytest.approx(2000, abs=3)


def test_importing_the_report_loads_no_template_engine_or_schema_library():
    program = (
        "import sys; before = set(sys.modules); import modscope.report, modscope.records;"
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not {"jinja2", "pydantic", "polars", "matplotlib"} & set(re.findall(r"\w+", loaded))


def tokens() -> dict[str, dict[str, str]]:
    """Colours of the light and of the dark theme, as the style sheet has them."""
    style = (ASSETS / "page.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{(.*?)\n\s*\}", style, re.DOTALL)[:2]
    pairs = {
        theme: dict(re.findall(r"--([\w-]+): (#[0-9A-F]{3,6})\b", text))
        for theme, text in (("light", light), ("dark", dark))
    }
    return {"light": pairs["light"], "dark": pairs["light"] | pairs["dark"]}


def linear(colour: str) -> np.ndarray:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    value = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """OKLab of linear RGB. Source: Ottosson 2020."""
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(to_lab) @ np.cbrt(np.array(to_lms) @ np.clip(rgb, 0, 1))


def contrast(one: str, other: str) -> float:
    bright = sorted(float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (one, other))
    return (bright[1] + 0.05) / (bright[0] + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("vision", VISION)
def test_module_colours_can_be_told_apart(theme, vision):
    colours = [oklab(np.array(VISION[vision]) @ linear(tokens()[theme][f"m{i}"])) for i in range(8)]
    smallest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(colours, 2))
    assert 100 * smallest >= 10


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(theme):
    colour = tokens()[theme]
    for ink, ground in itertools.product(("ink", "ink-2", "ink-3", "accent"), ("bg", "surface")):
        assert contrast(colour[ink], colour[ground]) >= 4.5, f"{ink} on {ground}"
    for module in range(8):
        assert contrast(colour[f"l{module}"], colour[f"m{module}"]) >= 4.0, f"letter of module {module}"
