"""A record comes back as it was, or not at all."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope import records
from modscope.errors import RecordError
from modscope.records import Record, installed_versions, plain, write_whole

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@dataclass(frozen=True)
class Measured:
    name: str
    values: np.ndarray


def small_record(**content: object) -> Record:
    return Record("analysis", "Two digits", {"p": 0.01, "samples": [0.1, 0.2, 1e-300], **content}, versions={"a": "1"})


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_a_record_comes_back_from_its_bytes_as_it_was(content):
    record = Record("analysis", "any", content)
    assert Record.from_json(record.to_json()) == record
    assert Record.from_json(record.to_json()).to_json() == record.to_json()


def test_the_order_of_keys_does_not_change_the_bytes():
    assert Record("a", "t", {"x": 1, "y": 2}).to_json() == Record("a", "t", {"y": 2, "x": 1}).to_json()


def test_the_bytes_are_the_same_in_another_process(tmp_path):
    program = (
        "import sys; from modscope.records import Record;"
        "sys.stdout.buffer.write(Record('a', 't', {k: 1 / (2 + len(k)) for k in {'x', 'yy', 'zzz'}}).to_json())"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, env={"PYTHONHASHSEED": str(seed)}
        ).stdout
        for seed in (1, 2)
    ]
    assert runs[0] == runs[1] == Record("a", "t", {"x": 1 / 3, "yy": 1 / 4, "zzz": 1 / 5}).to_json()


def test_a_file_comes_back_and_leaves_nothing_beside_it(tmp_path):
    record = small_record()
    assert Record.load(record.save(tmp_path / "record.json")) == record
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_every_number_survives_exactly():
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 2**70, float(np.float32(0.1))]
    back = Record.from_json(Record("a", "t", {"x": numbers}).to_json()).content["x"]
    assert [repr(number) for number in back] == [repr(number) for number in numbers]


def test_later_changes_of_the_callers_dict_do_not_reach_a_record():
    content = {"list": [1]}
    record = Record("a", "t", content)
    content["list"].append(2)
    assert record.content == {"list": [1]}


def damaged(data: bytes, draw: random.Random) -> bytes:
    """One of: flip a bit, set a byte, cut, extend, swap two blocks, zero a page, splice a piece of another place."""
    at, size = draw.randrange(len(data)), draw.randrange(1, 64)
    block = data[at : at + size]
    kind = draw.randrange(7)
    if kind == 0:
        return data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]
    if kind == 2:
        return data[:at]
    if kind == 3:
        return data + block
    if kind == 4:
        return data[:at] + data[at + size : at + 2 * size] + block + data[at + 2 * size :]
    if kind == 5:
        return data[:at] + bytes(len(data[at : at + 4096])) + data[at + 4096 :]
    other = draw.randrange(len(data))
    return data[:at] + data[other : other + size] + data[at + size :]


def test_no_damage_of_a_thousand_is_silent():
    draw = random.Random(0)
    record = small_record(cells=[{"module": m, "drop": m / 7, "text": "left – right"} for m in range(60)])
    data = record.to_json()
    n_found = n_same = 0
    for _ in range(1000):
        try:
            back = Record.from_json(damaged(data, draw), name="runs/demo/record.json")
        except RecordError as error:
            n_found += "runs/demo/record.json" in str(error)
        else:
            assert back == record
            n_same += 1
    assert n_found + n_same == 1000
    assert n_found > 900


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "not JSON"),
        (b"{}", "no checksum"),
        (b"[1]", "no checksum"),
        (b"\xff\xfe{}", "not JSON"),
        (b'{"a":1,"a":2,"sha256":""}', "twice"),
        (b'{"sha256":"","x":1e999}', "is inf"),
        (b'{"sha256":"","x":NaN}', "is nan"),
        (b'{"sha256":"","x":' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" * 10_000, "deep"),
        (b"[" * 60 + b"]" * 60, "deep"),
        (b'{"sha256":"' + b"0" * 64 + b'"}', "checksum differs"),
        (b'{"x":"\\ud800","sha256":""}', "surrogate"),
    ],
)
def test_bytes_that_are_no_record_are_refused_with_the_cause(data, cause):
    with pytest.raises(RecordError, match=cause):
        Record.from_json(data)


def test_a_record_of_a_newer_version_says_to_upgrade():
    newer = json.loads(small_record().to_json()) | {"schema": records.SCHEMA + 1}
    with pytest.raises(RecordError, match=r"newer modscope.*upgrade"):
        Record.from_json(json.dumps(newer))


def test_a_right_checksum_over_wrong_parts_is_refused():
    body = {"kind": "a"}
    with pytest.raises(RecordError, match="not a modscope record"):
        Record.from_json(json.dumps(body | {"sha256": records._digest(body)}))


def test_more_bytes_or_values_than_a_record_has_are_refused_before_they_are_read(tmp_path, monkeypatch):
    path = small_record().save(tmp_path / "record.json")
    monkeypatch.setattr(records, "MAX_VALUES", 5)
    with pytest.raises(RecordError, match="at most 5"):
        Record.load(path)
    monkeypatch.setattr(records, "MAX_BYTES", 10)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read although too large"))
    with pytest.raises(RecordError, match="at most 10"):
        Record.load(path)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        (math.nan, r"content\.x is nan"),
        ([0, math.inf], r"content\.x\[1\] is inf"),
        ({1: 2}, "key 1"),
        (np.float64(1), "float64"),
        (b"bytes", "bytes"),
        ("\ud800", "surrogate"),
    ],
)
def test_what_is_not_plain_json_is_refused_and_its_place_named(value, place):
    with pytest.raises(RecordError, match=place):
        Record("a", "t", {"x": value})


def test_nesting_without_end_is_refused():
    endless: list = []
    endless.append(endless)
    with pytest.raises(RecordError, match="deep"):
        Record("a", "t", {"x": endless})
    with pytest.raises(RecordError, match="deep"):
        plain(endless)


def test_arrays_tensors_and_dataclasses_become_plain_values():
    value = {"a": np.array([[1, 2]]), "b": torch.tensor([True]), 3: Measured("m", np.float32([0.5])), "p": Path("x")}
    assert plain(value) == {"a": [[1, 2]], "b": [True], "3": {"name": "m", "values": [0.5]}, "p": "x"}
    assert Record("a", "t", plain(value)).content["a"] == [[1, 2]]


def test_undefined_numbers_are_refused_or_become_null():
    with pytest.raises(RecordError, match=r"drop\[1\] is nan"):
        plain(np.array([0.5, np.nan]), at="drop")
    assert plain(np.array([0.5, np.nan, np.inf]), undefined_as_null=True) == [0.5, None, None]


def test_reading_a_missing_file_names_it(tmp_path):
    with pytest.raises(RecordError, match=r"cannot read .*gone\.json: No such file"):
        Record.load(tmp_path / "gone.json")


def test_writing_where_one_cannot_write_names_the_path_and_the_cause(tmp_path):
    (tmp_path / "file").write_text("")
    for path, cause in [
        (tmp_path, "it is a folder"),
        (tmp_path / "gone" / "r.json", "No such file"),
        (tmp_path / "file" / "r.json", "Not a directory"),
        (tmp_path / ("x" * 300), "name too long"),
    ]:
        with pytest.raises(RecordError, match=cause):
            small_record().save(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = small_record().save(tmp_path / "record.json")
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RecordError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_versions_name_python_and_say_what_is_not_installed():
    found = installed_versions(("numpy", "surely-not-a-package"))
    assert found["numpy"] == np.__version__
    assert found["surely-not-a-package"] == "not installed"
    assert found["python"].startswith("3.")
