"""How is CIFAR-10 read?"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from modscope.data.examples import DataSet, Examples
from modscope.data.files import read_checked
from modscope.data.pictures import decoded

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_TRAINING_SHEETS = tuple(f"cifar10/cifar10_train_{number}.webp" for number in range(5))
_TEST_SHEET = "cifar10/cifar10_test.webp"
_SIDE, _ROWS = 32, 100  # pixels of an image, images in a row and in a column of a sheet


def cifar10(folder: str | Path | None = None) -> DataSet:
    """Small photographs of ten classes: 50,000 training and 10,000 test images, 3 x 32 x 32 bytes, with their class.

    Image i has class i mod 10, so every run of ten images holds each class once; within a class the order is not that
    of the original batches.

    Raises:
        DataError: If a file is missing or damaged, or pillow is not installed.

    Source: Krizhevsky 2009.
    """
    return DataSet(train=_examples(_TRAINING_SHEETS, folder), test=cifar10_test(folder))


def cifar10_test(folder: str | Path | None = None) -> Examples:
    """The 10,000 test images of `cifar10` alone."""
    return _examples((_TEST_SHEET,), folder)


def cut(sheet: UInt8[Tensor, "height width 3"], side: int) -> UInt8[Tensor, "images 3 {side} {side}"]:
    """The square images of a sheet, row by row, channels first."""
    rows, columns = sheet.shape[0] // side, sheet.shape[1] // side
    images = sheet.reshape(rows, side, columns, side, 3).permute(0, 2, 4, 1, 3)  # (row, column, channel, y, x)
    return images.reshape(rows * columns, 3, side, side)


def _examples(sheets: tuple[str, ...], folder: str | Path | None) -> Examples:
    width = _SIDE * _ROWS
    images = torch.cat(
        [cut(decoded(read_checked(sheet, folder), sheet, width=width, height=width), _SIDE) for sheet in sheets]
    )
    return Examples(images, torch.arange(len(images)) % len(CLASS_NAMES))
