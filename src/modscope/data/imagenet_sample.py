"""How is the sample of ImageNet photographs read?"""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from modscope.data.examples import Examples
from modscope.data.files import read_checked
from modscope.data.pictures import decoded
from modscope.errors import DataError

_IMAGES, _LABELS = "imagenet_sample/images.zip", "imagenet_sample/labels.csv"
_SIDE = 256
_MEMBER_LIMIT = 2**20  # bytes of one JPEG; the largest has a tenth of it


def imagenet_sample(folder: str | Path | None = None) -> Examples:
    """Photographs of 334 ImageNet classes, one each: 3 x 256 x 256 bytes, with the class index (0 to 999).

    Networks may have seen some of them in training, so accuracies lie above those on the validation set.

    Raises:
        DataError: If a file is missing or damaged, or pillow is not installed.
    """
    table = list(csv.DictReader(io.StringIO(read_checked(_LABELS, folder).decode())))
    members = read_members(read_checked(_IMAGES, folder), [row["file"] for row in table], limit=_MEMBER_LIMIT)
    images = torch.stack([_picture(content, name) for name, content in members.items()])
    return Examples(images, torch.tensor([int(row["class_index"]) for row in table]))


def read_members(archive: bytes, names: list[str], *, limit: int) -> dict[str, bytes]:
    """The named members of a zip archive, unpacked in memory; nothing is written to disk.

    Args:
        archive: The archive's bytes.
        names: Which members, in which order.
        limit: The most bytes that a member may unpack to, whatever its header says.

    Raises:
        DataError: If it is no zip archive, a member is missing or broken, or is larger than `limit`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as members:
            return {name: _unpacked(members, name, limit) for name in names}
    except zipfile.BadZipFile as error:
        raise DataError(f"{_IMAGES} is not a whole zip archive: {error}; get it again") from error


def _unpacked(members: zipfile.ZipFile, name: str, limit: int) -> bytes:
    try:
        with members.open(name) as stream:
            content = stream.read(limit + 1)
    except KeyError as error:
        raise DataError(f"{_IMAGES} holds no '{name}'; get the archive and its labels again, both") from error
    if len(content) > limit:
        raise DataError(f"'{name}' in {_IMAGES} unpacks to more than {limit} bytes, so it is not what it should be")
    return content


def _picture(content: bytes, name: str) -> Tensor:
    return decoded(content, name, width=_SIDE, height=_SIDE).permute(2, 0, 1)
