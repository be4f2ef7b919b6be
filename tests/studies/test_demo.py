"""The demo: its truth comes out, its files are whole, and only its own folder is replaced."""

import json
from dataclasses import replace

import numpy as np
import pytest

from modscope.errors import StudyError
from modscope.records import Record
from modscope.studies.demo import NETWORKS, Demo, run_demo
from modscope.training.pruning import MagnitudePruning

SMALL = Demo(
    seed=3,
    sizes=(128, 16, 16, 20),
    n_clusters=3,
    n_samples=19,
    networks=(
        replace(NETWORKS[0]),
        replace(NETWORKS[2], n_steps=40, pruning=MagnitudePruning(final_density=0.3, begin=10, end=30)),
    ),
)


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory):
    return run_demo(SMALL, tmp_path_factory.mktemp("demo") / "small")


def test_the_same_seed_gives_the_same_record_byte_for_byte_with_any_number_of_workers(small_demo, tmp_path):
    again = run_demo(SMALL, tmp_path / "again", n_jobs=2)
    assert (again.folder / "record.json").read_bytes() == (small_demo.folder / "record.json").read_bytes()


def test_the_folder_holds_the_page_the_record_the_masks_and_the_times(small_demo):
    names = {path.name for path in small_demo.folder.iterdir()}
    assert names == {"report.html", "record.json", "timings.json", "untrained", "pruned"}
    timings = json.loads((small_demo.folder / "timings.json").read_text())
    assert set(timings["networks"]) == {"untrained", "pruned"}
    assert timings["total"] > 0


def test_the_record_knows_its_seed_and_versions(small_demo):
    record = Record.load(small_demo.folder / "record.json")
    assert record.content["demo"]["seed"] == SMALL.seed
    assert {"modscope", "torch", "numpy", "python"} <= set(record.versions)


def test_only_a_finished_demo_is_replaced(small_demo, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("do not touch")
    with pytest.raises(StudyError, match="choose another --out"):
        run_demo(SMALL, mine)
    assert (mine / "thesis.txt").read_text() == "do not touch"
    run_demo(SMALL, small_demo.folder)  # its own folder: replaced
    assert (small_demo.folder / "report.html").stat().st_size > 0


def test_an_unwritable_place_is_refused_before_anything_is_trained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot write"):
        run_demo(SMALL, tmp_path / "file" / "demo")


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("modscope.studies.demo.analyze", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_demo(SMALL, tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_truth_comes_out(tmp_path):
    """Two sides that have nothing to do with each other: separate weights and modules in the pruned network."""
    finished = run_demo(Demo(seed=0), tmp_path / "demo", n_jobs=2)
    states = {name: {line.key: line.state for line in run.verdicts} for name, run in finished.runs.items()}
    assert [states[name]["structure"] for name in ("untrained", "dense", "pruned")] == ["no", "part", "yes"]
    assert states["untrained"]["function"] == "na"
    assert states["dense"]["function"] == states["pruned"]["function"] == "yes"
    assert states["pruned"]["importance"] == states["pruned"]["bridge"] == "yes"
    for name in ("dense", "pruned"):
        special = finished.runs[name].results.specialization
        own, other = special.mask_accuracy.diagonal(), special.mask_accuracy[::-1].diagonal()
        assert (special.whole_accuracy > 0.93).all()
        assert (special.whole_accuracy - own < 0.03).all()
        assert (other < 0.2).all()
        assert (special.inverse_accuracy.diagonal() < 0.2).all()
    assert (np.fliplr(finished.runs["dense"].results.specialization.inverse_accuracy).diagonal() > 0.6).all()
