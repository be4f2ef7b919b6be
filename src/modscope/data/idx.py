"""How are MNIST and Fashion-MNIST read?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from modscope.data.examples import DataSet, Examples
from modscope.data.files import read_checked, unzipped
from modscope.errors import DataError

_UNSIGNED_BYTES = 8  # the format's code for its element type; no other one is used by these files
_LIMIT = 64 * 2**20


def mnist(folder: str | Path | None = None) -> DataSet:
    """Handwritten digits: 60,000 training and 10,000 test images, 1 x 28 x 28 bytes, with their digit.

    Raises:
        DataError: If a file is missing or damaged.

    Source: LeCun, Cortes & Burges, CC BY-SA 3.0.
    """
    return _data_set("mnist", folder)


def fashion_mnist(folder: str | Path | None = None) -> DataSet:
    """Pictures of clothes: 60,000 training and 10,000 test images, 1 x 28 x 28 bytes, with their class.

    Raises:
        DataError: If a file is missing or damaged.

    Source: Xiao, Rasul & Vollgraf 2017, MIT licence (Zalando).
    """
    return _data_set("fashion_mnist", folder)


def read_idx(content: bytes, name: str) -> UInt8[Tensor, "..."]:
    """The array in an unpacked idx file of bytes.

    Args:
        content: The file: two zero bytes, the element type, the number of axes, their lengths (big-endian), the data.
        name: What it is called in messages.

    Raises:
        DataError: If it is no idx file of bytes, or its length does not fit its header.
    """
    if len(content) < 4 or content[:3] != bytes([0, 0, _UNSIGNED_BYTES]) or len(content) < 4 + 4 * content[3]:
        raise DataError(f"{name} is no idx file of bytes: it begins with {content[:4].hex() or 'nothing'}")
    n_axes = content[3]
    shape = [int(length) for length in np.frombuffer(content, ">u4", count=n_axes, offset=4)]
    n_bytes, n_wanted = len(content) - 4 - 4 * n_axes, int(np.prod(shape, dtype=object))
    if n_bytes != n_wanted:
        raise DataError(f"{name} should hold {n_wanted} bytes of data for its shape {tuple(shape)}, but has {n_bytes}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * n_axes).reshape(shape).copy())


def _data_set(name: str, folder: str | Path | None) -> DataSet:
    def array(file: str) -> Tensor:
        path = f"{name}/{file}-ubyte.gz"
        return read_idx(unzipped(read_checked(path, folder), path, limit=_LIMIT), path)

    def examples(split: str) -> Examples:
        return Examples(array(f"{split}-images-idx3")[:, None], array(f"{split}-labels-idx1").long())

    return DataSet(train=examples("train"), test=examples("t10k"))
