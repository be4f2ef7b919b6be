"""The command line: one-line errors that say what to do, exit code 2, no traceback."""

import pytest

from modscope.cli import app, main

FACTORIES = """
import torch
from torch import nn

def good():
    return nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), torch.zeros(1, 3)

def alone():
    return nn.Linear(3, 5)

def no_model():
    return 42

def wrong_inputs():
    return nn.Linear(3, 5), torch.zeros(1, 4)

def breaks():
    raise RuntimeError("out of order")
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def run(capsys, *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    captured = capsys.readouterr()
    return stop.value.code or 0, captured.out, captured.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nonsense"], "nonsense"),
        (["demo", "--nonsense"], "--nonsense"),
        (["demo", "--seed", "many"], "--seed"),
        (["demo", "--seed", "-1"], "--seed must be 0 or a larger number, got -1"),
        (["demo", "--out", "my_models.py/demo"], "choose another --out"),
        (["demo", "--out", "."], "choose another --out"),
        (["units", "nowhere"], "neither a folder nor module.path:factory"),
        (["units", "my_models:no_model"], "torch.nn.Module"),
        (["units", "my_models:missing"], "missing"),
        (["units", "my_models:breaks"], "out of order"),
        (["units", "my_models:alone"], "--shape"),
        (["units", "my_models:alone", "--shape", "1x3"], "--shape wants"),
        (["units", "my_models:wrong_inputs"], "1, 4"),
        (["units", "."], "config.json"),
    ],
)
def test_bad_input_is_one_line_with_exit_code_2(factories, capsys, words, says):
    code, out, err = run(capsys, *words)
    assert code == 2
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_a_table_that_cannot_be_written_is_one_line_with_exit_code_2(factories, capsys):
    code, _, err = run(capsys, "units", "my_models:good", "--csv", "no/such/folder/units.csv")
    assert code == 2
    assert err == "modscope: cannot write no/such/folder/units.csv: No such file or directory\n"


def test_ctrl_c_is_one_line_with_exit_code_130_and_leaves_nothing_behind(capsys, tmp_path, monkeypatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("modscope.studies.demo.two_digits", interrupted)
    code, out, err = run(capsys, "demo", "--out", str(tmp_path / "new" / "demo"), "--jobs", "1", "--quiet")
    assert (code, out) == (130, "")
    assert err == "modscope: stopped; nothing that was finished is lost\n"
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(factories):
    with pytest.raises(Exception, match="neither a folder"):
        main(["units", "nowhere", "--debug"])


def test_units_are_counted_and_written_as_a_table(factories, capsys, tmp_path):
    code, out, _ = run(capsys, "units", "my_models:good", "--csv", "units.csv")
    assert code == 0
    assert "10" in out
    assert len((tmp_path / "units.csv").read_text().splitlines()) == 1 + 3


def test_a_shape_stands_in_for_example_inputs(factories, capsys):
    code, out, _ = run(capsys, "units", "my_models:alone", "--shape", "1,3")
    assert code == 0
    assert "8" in out


def test_a_hugging_face_folder_is_read_from_its_config_alone(capsys, tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=50, n_positions=32)
    config.architectures = ["GPT2LMHeadModel"]
    config.save_pretrained(tmp_path)
    code, out, _ = run(capsys, "units", str(tmp_path))
    assert code == 0
    assert str(16 + 2 * (48 + 64) + 50) in out


def test_every_command_has_help(capsys):
    for name in app:
        if not name.startswith("-"):
            code, out, _ = run(capsys, name, "--help")
            assert code == 0
            assert "Usage" in out
