"""The idx format, and the two data sets that come in it."""

import struct

import numpy as np
import pytest
import torch

from modscope.data.idx import fashion_mnist, mnist, read_idx
from modscope.errors import DataError


def _idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_an_array_comes_back_as_it_was_written():
    array = np.random.default_rng(0).integers(256, size=(3, 4, 5), dtype=np.uint8)
    assert torch.equal(read_idx(_idx(array), "file"), torch.from_numpy(array))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing"),
        (b"\x00\x00\x0d\x01" + bytes(8), "no idx file of bytes"),
        (b"\x00\x00\x08\x03\x00\x00", "no idx file of bytes"),
        (_idx(np.zeros((2, 3), np.uint8))[:-1], r"6 bytes of data for its shape \(2, 3\), but has 5"),
        (b"\x00\x00\x08\x04" + b"\xff" * 16, "but has 0"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(content, message):
    with pytest.raises(DataError, match=message):
        read_idx(content, "file")


@pytest.mark.data
@pytest.mark.parametrize("read", [mnist, fashion_mnist])
def test_the_data_sets_have_their_published_sizes(read, data_folder):
    data = read(data_folder)
    assert data.train.inputs.shape == (60_000, 1, 28, 28)
    assert data.test.inputs.shape == (10_000, 1, 28, 28)
    assert data.test.targets.unique().tolist() == list(range(10))


@pytest.mark.data
def test_mnist_begins_as_everybody_knows_it(data_folder):
    data = mnist(data_folder)
    assert data.train.targets[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert float(data.train.inputs.float().mean() / 255) == pytest.approx(0.1307, abs=5e-5)
