"""What a report does in a real browser: it draws, it asks for nothing, and no text in it becomes code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from modscope.records import Record
from modscope.report import content, write_report

CANARY = "document.documentElement.dataset.canary=1"
PAYLOADS = [
    f"</script><script>{CANARY}</script>",
    f"<img src=x onerror={CANARY}>",
    f'" onmouseover="{CANARY}" autofocus onfocus="{CANARY}',
    f"' onclick='{CANARY}",
    f"javascript:{CANARY}",
    "https://example.org/%22%3E<script>",
    f"]]><script>{CANARY}</script>",
    f"--><script>{CANARY}</script><!--",
    f"<svg onload={CANARY}>",
    f"<svg><script>{CANARY}</script></svg>",
    "{{7*7}} {% raw %} {# #}",
    "${7*7} `${" + CANARY + "}`",
    "line\u2028break\u2029here",
    "<style>*{background:url(http://example.org/a)}</style><b style=background:url(//example.org/b)>",
    "</style><link rel=stylesheet href=//example.org/c>",
    f"</title><script>{CANARY}</script>",
    "&lt;script&gt; &amp; &#60;script&#62;",
    "\u202egnirts desrever\u202c",
    "zero\u200bwidth\ufeff\u00ad",
    "\U0001f9e0\U0001f3f4\U000e0067 emoji",
    "__proto__",
    "constructor",
    "<math><mtext></mtext><mglyph><style></math><img src onerror=" + CANARY + ">",
    '=cmd|" /C calc"!A0',
    "[link](javascript:alert(1)) **bold**",
    "\x1b[31mred\x1b[0m",
    f"<iframe srcdoc='<script>parent.{CANARY}</script>'></iframe>",
    "<base href=//example.org/><form action=//example.org/d><button autofocus>",
    "<noscript><p title='</noscript><img src=x onerror=" + CANARY + ">'>",
    "\\u003cscript\\u003e \\",
]
# Kept in the record, never shown: names that only join parts, and remarks for other programs.
NOT_SHOWN = {
    "RunInfo.id", "RunInfo.hash", "RunInfo.device", "DataInfo.hash", "TaskInfo.id", "TaskInfo.metric", "Layer.id",
    "Test.correction", "SweepBand.id", "Null.id", "Null.keeps", "Control.id", "Cell.control", "Cell.task",
    "Agreement.control", "Share.pair", "Density.task", "Performance.task", "Lesion.task", "Lesion.layer",
    "Lesions.ablation", "Lesions.test.unit", "Reference.url", "Module.name", "Layer.unit_labels", "Layer.sides",
    "Missing.why",
}  # fmt: skip


class Reader(HTMLParser):
    """The text and the attributes of a page, as a browser wrote them out."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text: list[str] = []
        self.attributes: set[str] = set()
        self.tags: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text.append(data)


def read_page(dom: str) -> Reader:
    reader = Reader()
    reader.feed(dom)
    return reader


def is_free_text(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return False
    return annotation is str or any(is_free_text(part) for part in get_args(annotation))


def text_fields(model: BaseModel) -> Iterator[tuple[str, str]]:
    """Every piece of free text in a record, with the name of its field, found by walking the schema."""
    for name, field in type(model).model_fields.items():
        values = getattr(model, name)
        for value in values if isinstance(values, list | tuple) else [values]:
            if isinstance(value, BaseModel):
                yield from text_fields(value)
            elif isinstance(value, str) and is_free_text(field.annotation):
                yield f"{type(model).__name__}.{name}", value


def poisoned(model: BaseModel, poison: dict[str, str]) -> dict[str, Any]:
    """The content with every free text replaced; equal texts stay equal, so that names still join the parts."""

    def replaced(value: Any, is_text: bool) -> Any:
        if isinstance(value, BaseModel):
            return poisoned(value, poison)
        if isinstance(value, list | tuple):
            return [replaced(item, is_text) for item in value]
        return poison.get(value, value) if is_text and isinstance(value, str) else value

    fields = type(model).model_fields.items()
    return {name: replaced(getattr(model, name), is_free_text(field.annotation)) for name, field in fields}


def all_schema_fields() -> set[str]:
    parts = [kind for kind in vars(content).values() if isinstance(kind, type) and issubclass(kind, BaseModel)]
    return {
        f"{part.__name__}.{name}"
        for part in parts
        for name, field in part.model_fields.items()
        if is_free_text(field.annotation)
    }


@pytest.fixture(scope="module")
def full(made_up_single: Record) -> content.Analysis:
    """An analysis with text in every field that can hold text."""
    raw = made_up_single.content | {"files": [{"name": "masks file", "path": "masks.safetensors"}]}
    raw["run"] = raw["run"] | {"hash": "some hash", "device": "some device"}
    raw["data"] = raw["data"] | {"hash": "data hash"}
    raw["model"] = raw["model"] | {"unsupported": ["an op"]}
    raw["modules"] = [{**raw["modules"][0], "name": "a name"}, *raw["modules"][1:]]
    raw["layers"] = [{**layer, "label": f"layer {layer['id']}"} for layer in raw["layers"]]
    raw["lesions"] = raw["lesions"] | {"why": "a remark on lesions"}
    return content.Analysis.model_validate(raw)


def test_the_watch_sees_code_requests_and_errors(browse, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text(
        f"<img src=http://example.org/x.png><img src=x onerror={CANARY}><script>fetch('//example.com/y');boo()</script>"
    )
    visit = browse(page)
    assert "data-canary" in visit.dom
    assert any("boo is not defined" in line for line in visit.console)
    assert "http://example.org/x.png" in visit.requests


@pytest.mark.parametrize(("width", "height"), [(1360, 8000), (520, 13000)])
def test_the_page_draws_every_figure_without_a_request_or_an_error(browse, made_up_collection, tmp_path, width, height):
    visit = browse(write_report(made_up_collection, tmp_path / "report.html"), width=width, height=height)
    assert visit.console == ()
    assert visit.requests == ()
    assert "This figure could not be drawn" not in re.sub(r"(?s)<script.*?</script>", "", visit.dom)
    shown = re.findall(r'<figure class="[^"]*" id="f-([\w-]+)" data-kind="\w+" data-run="(?:pruned)?"[^>]*>', visit.dom)
    assert len(shown) == 14
    for figure in shown:
        body = visit.dom.split(f'id="f-{figure}"')[1].split("</figure>")[0]
        assert re.search(r'class="plot".*?<svg.*?<(rect|circle|path)', body, re.DOTALL), f"figure {figure} is empty"


@pytest.mark.parametrize("chosen", ["untrained", "dense"])
def test_another_network_can_be_chosen_by_the_address(browse, made_up_collection, tmp_path, chosen):
    page = write_report(made_up_collection, tmp_path / "report.html")
    visit = browse(page, fragment=f"#run={chosen}&m=B&ctl=raw&s=structure")
    assert visit.console == ()
    hidden = dict(re.findall(r'<figure class="[^"]*" id="f-network-(\w+)"[^>]*?( hidden="")?>', visit.dom))
    assert {name for name, is_hidden in hidden.items() if not is_hidden} == {chosen}
    assert f'data-choose="{chosen}" aria-pressed="true"' in visit.dom


def test_a_bad_address_is_ignored(browse, made_up_collection, tmp_path):
    page = write_report(made_up_collection, tmp_path / "report.html")
    visit = browse(page, fragment="#run=__proto__&m=ZZ&u=%00&ctl=<script>&s=nowhere")
    assert visit.console == ()
    assert 'data-choose="pruned" aria-pressed="true"' in visit.dom


def test_one_network_makes_a_page_without_a_switch(browse, made_up_single, tmp_path):
    visit = browse(write_report(made_up_single, tmp_path / "report.html"))
    assert (visit.console, visit.requests) == ((), ())
    assert "data-choose=" not in re.sub(r"(?s)<(script|style).*?</\1>", "", visit.dom)


def test_the_made_up_record_holds_text_in_every_field_of_the_schema(full):
    collection = content.Collection(title="t", text="x", records=[full], files=list(full.files), warnings=full.warnings)
    held = {name for name, _ in text_fields(collection)} | {"Missing.why"}
    assert held == all_schema_fields()


@pytest.mark.parametrize("shift", range(3))
def test_hostile_text_in_every_field_is_shown_as_written_and_never_runs(browse, full, tmp_path, shift):
    """Ten networks on one page, each with other payloads in every field; three pages bring all to every field."""
    networks, expected = [], set()
    texts = sorted({text for _, text in text_fields(full) if text})
    for turn in range(10):
        start = turn + 10 * shift
        poison = {text: f"{PAYLOADS[(start + i) % len(PAYLOADS)]} \u00a7{turn}.{i}" for i, text in enumerate(texts)}
        networks.append(poisoned(full, poison))
        expected |= {poison[text] for name, text in text_fields(full) if text and name not in NOT_SHOWN}
    record = Record(
        "collection", PAYLOADS[shift], {"title": PAYLOADS[shift], "text": PAYLOADS[-1], "records": networks}
    )
    visit = browse(write_report(record, tmp_path / "report.html"))
    assert "data-canary" not in visit.dom
    assert visit.console == ()
    assert visit.requests == ()
    page = read_page(visit.dom)
    assert not [name for name in page.attributes if name.startswith("on")]
    assert page.tags.count("script") == 2
    assert not {"iframe", "img", "base", "form", "math", "noscript p"} & set(page.tags)
    text = "\n".join(page.text)
    missing = [payload for payload in expected if payload not in text]
    assert len(expected) > 250
    assert not missing, f"{len(missing)} of {len(expected)} texts are not shown as written: {missing[:3]}"


def test_a_hundred_thousand_characters_in_a_name_do_not_break_the_page(browse, full, tmp_path):
    poison = {"left digit": "long " * 20_000, "Pruned": "W" * 100_000}
    record = Record("analysis", "long", poisoned(full, poison))
    visit = browse(write_report(record, tmp_path / "report.html"))
    assert (visit.console, visit.requests) == ((), ())


def test_no_part_of_the_page_is_trusted_blindly():
    folder = Path(content.__file__).parent
    sources = "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.*") if path.suffix != ".pyc")
    for risky in (
        "|safe",
        "| safe",
        "Markup(",
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
    ):
        assert risky not in sources
