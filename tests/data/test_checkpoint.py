"""A safetensors file gives its tensors and its metadata, or is refused."""

import pytest
import torch
from safetensors.torch import save

from modscope.data.checkpoint import decode_checkpoint
from modscope.errors import DataError


def test_tensors_and_metadata_come_back():
    checkpoint = decode_checkpoint(save({"a.weight": torch.arange(3.0)}, {"source": "here"}), "file")
    assert checkpoint.tensors["a.weight"].tolist() == [0, 1, 2]
    assert checkpoint.metadata == {"source": "here"}


def test_a_file_without_metadata_has_none():
    assert decode_checkpoint(save({"a": torch.zeros(1)}), "file").metadata == {}


@pytest.mark.parametrize("content", [b"", b"short", bytes(100), b"\xff" * 100])
def test_broken_files_are_refused(content):
    with pytest.raises(DataError, match="not a whole safetensors file"):
        decode_checkpoint(content, "file")
