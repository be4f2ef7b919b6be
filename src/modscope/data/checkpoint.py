"""What does a published network's file hold?"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from modscope.data.files import read_checked
from modscope.errors import DataError


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The tensors of a safetensors file by name, and what its metadata says (`source` and `licence` at least)."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_checkpoint(file: str, folder: str | Path | None = None) -> Checkpoint:
    """The content of a known safetensors file.

    Raises:
        DataError: If the file is missing or damaged.
    """
    return decode_checkpoint(read_checked(file, folder), file)


def decode_checkpoint(content: bytes, name: str) -> Checkpoint:
    """The tensors and the metadata in the bytes of a safetensors file.

    Raises:
        DataError: If it is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(content)
        (header_length,) = struct.unpack_from("<Q", content)
        metadata = json.loads(content[8 : 8 + header_length]).get("__metadata__", {})
    except (SafetensorError, struct.error, ValueError) as error:
        raise DataError(f"{name} is not a whole safetensors file: {error}; get it again") from error
    return Checkpoint(tensors, metadata)
