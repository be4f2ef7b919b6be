"""How is a picture file decoded? With pillow, which is asked for only here."""

from __future__ import annotations

import io

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from modscope.errors import DataError


def decoded(content: bytes, name: str, *, width: int, height: int) -> UInt8[Tensor, "height width 3"]:
    """The RGB pixels of a picture that must have the given size.

    Args:
        content: The picture file, in any format that pillow reads.
        name: What it is called in messages.
        width: Wanted width in pixels; a picture of another size is refused before its pixels are unpacked.
        height: Wanted height in pixels.

    Raises:
        DataError: If pillow is missing, the file is no picture, or has another size.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise DataError(f"{name} needs pillow to be read; install modscope[images]") from error
    try:
        with Image.open(io.BytesIO(content)) as picture:
            if picture.size != (width, height):
                raise DataError(f"{name} should be {width}x{height} pixels, but is {picture.size[0]}x{picture.size[1]}")
            return torch.from_numpy(np.array(picture.convert("RGB")))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # SyntaxError: pillow's own for broken files
        raise DataError(f"{name} is not a whole picture: {error}; get it again") from error
