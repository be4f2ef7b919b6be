"""Pictures are decoded exactly, or refused."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from modscope.data.pictures import decoded
from modscope.errors import DataError


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_a_lossless_picture_comes_back_pixel_by_pixel():
    pixels = np.random.default_rng(0).integers(256, size=(5, 7, 3), dtype=np.uint8)
    assert np.array_equal(decoded(_png(pixels), "picture", width=7, height=5).numpy(), pixels)


def test_a_grey_picture_gets_three_equal_channels():
    picture = decoded(_png(np.arange(6, dtype=np.uint8).reshape(2, 3)), "picture", width=3, height=2)
    assert picture[1, 2].tolist() == [5, 5, 5]


def test_without_pillow_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"picture needs pillow to be read; install modscope\[images\]"):
        decoded(b"", "picture", width=1, height=1)


def test_pictures_of_another_size_and_broken_ones_are_refused():
    content = _png(np.zeros((5, 7, 3), np.uint8))
    with pytest.raises(DataError, match="should be 5x5 pixels, but is 7x5"):
        decoded(content, "picture", width=5, height=5)
    for broken in (b"", b"no picture", content[:40]):
        with pytest.raises(DataError, match="not a whole picture"):
            decoded(broken, "picture", width=7, height=5)
