"""Where does a data file lie, and is it whole?"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from pathlib import Path

from modscope.data.known import SHA256_BY_FILE
from modscope.errors import DataError

FOLDER_VARIABLE = "MODSCOPE_DATA"


def data_file(file: str, folder: str | Path | None = None) -> Path:
    """Where a known file must lie: below `folder`, or below the folder that MODSCOPE_DATA names.

    Args:
        file: One of `SHA256_BY_FILE`, such as "mnist/t10k-labels-idx1-ubyte.gz".
        folder: The folder of data sets and networks; None: what the environment says.

    Raises:
        DataError: If the file is not a known one, no folder is named, or the file is not there.
    """
    if file not in SHA256_BY_FILE:
        raise DataError(f"'{file}' is not a known data file; known are {', '.join(sorted(SHA256_BY_FILE))}")
    root = folder or os.environ.get(FOLDER_VARIABLE)
    if not root:
        raise DataError(f"{file} is needed; give the folder it lies in, or set {FOLDER_VARIABLE} to it")
    path = Path(root) / file
    if not path.is_file():
        raise DataError(
            f"no {file} at {path}; put it there, or set {FOLDER_VARIABLE} to the folder of data sets and networks "
            f"(SHA-256 {SHA256_BY_FILE[file]})"
        )
    return path


def read_checked(file: str, folder: str | Path | None = None) -> bytes:
    """The bytes of a known file, as they were when their SHA-256 was written down.

    Raises:
        DataError: If the file is missing, unreadable or damaged.
    """
    path = data_file(file, folder)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; look at its permissions") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256_BY_FILE[file]:
        raise DataError(
            f"{path} is damaged or another file: SHA-256 is {found}, wanted {SHA256_BY_FILE[file]}; get it again"
        )
    return content


def unzipped(content: bytes, name: str, *, limit: int) -> bytes:
    """What a gzip file holds.

    Args:
        content: The file's bytes.
        name: What it is called in messages.
        limit: The most bytes to unpack, so that a small file cannot fill the memory.

    Raises:
        DataError: If it is no gzip file, or holds more than `limit` bytes.
    """
    try:
        with gzip.open(io.BytesIO(content)) as stream:
            unpacked = stream.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is not a whole gzip file: {error}; get it again") from error
    if len(unpacked) > limit:
        raise DataError(f"{name} unpacks to more than {limit} bytes, so it is not the file it should be")
    return unpacked
