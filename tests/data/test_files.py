"""A data file is found where it should lie, and is whole or refused."""

import gzip
import hashlib
from pathlib import Path

import pytest

from modscope.data import files
from modscope.data.files import data_file, read_checked, unzipped
from modscope.data.known import SHA256_BY_FILE
from modscope.errors import DataError

LABELS = "mnist/t10k-labels-idx1-ubyte.gz"


def test_a_missing_file_names_the_variable_and_the_path_it_should_have(tmp_path, monkeypatch):
    monkeypatch.delenv("MODSCOPE_DATA", raising=False)
    with pytest.raises(DataError, match=rf"no {LABELS} at {tmp_path}/{LABELS}.*MODSCOPE_DATA"):
        data_file(LABELS, tmp_path)
    with pytest.raises(DataError, match="set MODSCOPE_DATA"):
        data_file(LABELS)
    monkeypatch.setenv("MODSCOPE_DATA", str(tmp_path))
    with pytest.raises(DataError, match=str(tmp_path)):
        data_file(LABELS)


def test_an_unknown_file_lists_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=f"not a known data file.*{LABELS}"):
        data_file("mnist/extra.gz", tmp_path)


def test_a_file_of_other_content_is_refused_and_the_right_one_is_read(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    (tmp_path / LABELS).write_bytes(b"whole")
    with pytest.raises(DataError, match=f"damaged or another file.*wanted {SHA256_BY_FILE[LABELS]}"):
        read_checked(LABELS, tmp_path)
    monkeypatch.setattr(files, "SHA256_BY_FILE", {LABELS: hashlib.sha256(b"whole").hexdigest()})
    assert read_checked(LABELS, tmp_path) == b"whole"


def test_a_file_that_cannot_be_read_says_why(tmp_path, monkeypatch):
    (tmp_path / "mnist").mkdir()
    (tmp_path / LABELS).write_bytes(b"")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"cannot be read.*Permission denied"):
        read_checked(LABELS, tmp_path)


def test_gzip_is_unpacked_up_to_the_limit():
    packed = gzip.compress(b"x" * 1000)
    assert unzipped(packed, "file", limit=1000) == b"x" * 1000
    with pytest.raises(DataError, match="more than 999 bytes"):
        unzipped(packed, "file", limit=999)


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(b"x" * 1000)[:-9], gzip.compress(b"x")[:5]], ids=["other", "cut", "header"]
)
def test_broken_gzip_is_refused(content):
    with pytest.raises(DataError, match="not a whole gzip file"):
        unzipped(content, "file", limit=10_000)


@pytest.mark.data
def test_every_known_file_is_whole(data_folder):
    for file in SHA256_BY_FILE:
        assert read_checked(file, data_folder)
