"""What did a run find, as data that outlives the run?

A record is plain JSON. Its bytes are canonical: the same run gives the same file, byte for byte. A checksum inside
finds damage (a hash finds damage, not an author: whoever can change the file can change the checksum too).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

from modscope.errors import RecordError

Json: TypeAlias = Any  # None, bool, int, float, str, list of Json, dict of str to Json

SCHEMA = 1
MAX_BYTES = 64 * 2**20
MAX_VALUES = 4_000_000  # about 300 MB once read
MAX_DEPTH = 50


@dataclass(frozen=True)
class Record:
    """What a run found, as data.

    Args:
        kind: What it holds, in one word: "analysis", "collection".
        title: What a reader sees first.
        content: Plain JSON values: None, bool, int, finite float, str, list, dict with text keys. `plain` makes them
            from arrays and dataclasses. Fractions are in [0, 1].
        schema: Version of the layout of `content`.
        versions: Name of a package -> its version.

    Raises:
        RecordError: If something in it is not plain JSON; the message names the place.
    """

    kind: str
    title: str
    content: dict[str, Json]
    schema: int = SCHEMA
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("kind", "title"):
            if not isinstance(getattr(self, name), str):
                raise RecordError(f"a record's {name} must be text, got {type(getattr(self, name)).__name__}")
        if type(self.schema) is not int or self.schema < 1:
            raise RecordError(f"a record's schema must be a whole number from 1, got {self.schema!r}")
        for name in ("content", "versions"):
            if not isinstance(getattr(self, name), dict):
                raise RecordError(f"a record's {name} must be a dict, got {type(getattr(self, name)).__name__}")
            # A copy: the caller's later changes must not reach a record.
            object.__setattr__(self, name, _checked(getattr(self, name), name, 1))

    def to_json(self) -> bytes:
        """Canonical bytes: sorted keys, shortest exact floats, no clock; ends with a line break."""
        body = self._body()
        return _canonical({**body, "sha256": _digest(body)}) + b"\n"

    @classmethod
    def from_json(cls, data: bytes | str, *, name: str = "record") -> Record:
        """The record in these bytes.

        Args:
            data: What `to_json` gave.
            name: What to call them in an error, for instance the path.

        Raises:
            RecordError: If they are damaged, too large, or written by a newer version.
        """
        body = _parsed(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data, name)
        if not isinstance(body, dict) or not isinstance(body.get("sha256"), str):
            raise RecordError(f"{name} is not a modscope record: it has no checksum")
        schema = body.get("schema")
        if type(schema) is int and schema > SCHEMA:
            raise RecordError(
                f"{name} was written by a newer modscope (schema {schema}; this version reads up to {SCHEMA}); "
                "upgrade modscope to read it"
            )
        digest = body.pop("sha256")
        if _digest(body) != digest:
            raise RecordError(f"{name} is damaged (its checksum differs); restore the file or run again")
        if set(body) != {item.name for item in dataclasses.fields(cls)}:
            raise RecordError(f"{name} is not a modscope record: it has the parts {sorted(body)}")
        return cls(**body)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the record to a file, all of it or nothing, and return the path.

        Raises:
            RecordError: If the file cannot be written.
        """
        return write_whole(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Record:
        """The record in a file.

        Raises:
            RecordError: If the file is missing, damaged, too large, or written by a newer version.
        """
        path = Path(path)
        try:
            size = path.stat().st_size
            if size > MAX_BYTES:
                raise RecordError(f"{path} has {size:,} bytes; a record has at most {MAX_BYTES:,}")
            data = path.read_bytes()
        except OSError as error:
            raise RecordError(f"cannot read {path}: {error.strerror or error}") from error
        return cls.from_json(data, name=str(path))

    def record(self) -> Record:
        """Itself, so that a record can stand wherever a result with a record can."""
        return self

    def _body(self) -> dict[str, Json]:
        return {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}


def plain(value: object, *, undefined_as_null: bool = False, at: str = "value") -> Json:
    """The value as plain JSON: arrays and tensors become lists, dataclasses become dicts, paths become text.

    Args:
        value: Numbers, text, arrays, tensors, dataclasses, mappings and sequences of these.
        undefined_as_null: Turn NaN and infinity into None; say beside it why the number is undefined.
        at: Name of the value in an error.

    Raises:
        RecordError: If something in it has no plain form, or a number is not finite.
    """
    return _plain(value, undefined_as_null, at, 1)


def record_of(kind: str, values: Mapping[str, object]) -> Record:
    """The record of one result: its numbers as plain JSON (undefined ones as null), and the versions behind them."""
    content = plain(values, undefined_as_null=True)
    return Record(kind, kind, content, versions=installed_versions())


def installed_versions(packages: Iterable[str] = ("modscope", "torch", "numpy", "scipy")) -> dict[str, str]:
    """Version of Python and of these packages; "not installed" where one is missing. Imports none of them."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def write_whole(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file so that a reader sees the old one or the new one, never a part, and return its path.

    Raises:
        RecordError: If the file cannot be written: no such folder, no right, no space.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name[:100]}.{os.getpid()}.part")
    try:
        if path.is_dir():
            raise RecordError(f"cannot write {path}: it is a folder; give the name of a file")
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise RecordError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # after a success it is gone already
            beside.unlink()
    return path


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a loss of power, where the system has such a call."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _canonical(value: Json) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def _digest(body: Json) -> str:
    return hashlib.sha256(_canonical(body)).hexdigest()


def _plain(value: Any, undefined_as_null: bool, at: str, depth: int) -> Json:
    if depth > MAX_DEPTH:
        raise RecordError(f"{at} is nested more than {MAX_DEPTH} deep")
    if hasattr(value, "tolist"):  # arrays, tensors and their scalars, without importing either library
        value = value.tolist()
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, float) and not math.isfinite(value) and undefined_as_null:
        return None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, undefined_as_null, f"{at}.{key}", depth + 1) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_plain(item, undefined_as_null, f"{at}[{index}]", depth + 1) for index, item in enumerate(value)]
    return _checked(value, at, depth)


def _checked(value: Json, at: str, depth: int) -> Json:
    """A copy of a plain value.

    Raises:
        RecordError: If something in it is not plain JSON, naming the place.
    """
    if depth > MAX_DEPTH:
        raise RecordError(f"{at} is nested more than {MAX_DEPTH} deep")
    if value is None or isinstance(value, bool) or type(value) is int:
        return value
    if type(value) is float:
        if not math.isfinite(value):
            raise RecordError(f"{at} is {value}: write None and say why the number is undefined")
        return value
    if type(value) is str:
        return _checked_text(value, at)
    if isinstance(value, list | tuple):
        return [_checked(item, f"{at}[{index}]", depth + 1) for index, item in enumerate(value)]
    if isinstance(value, dict):
        return {_checked_key(key, at): _checked(item, f"{at}.{key}", depth + 1) for key, item in value.items()}
    raise RecordError(f"{at} is a {type(value).__name__}, which has no plain JSON form; use modscope.records.plain")


def _checked_key(key: object, at: str) -> str:
    if type(key) is not str:
        raise RecordError(f"{at} has the key {key!r}; keys must be text")
    return _checked_text(key, f"a key of {at}")


def _checked_text(text: str, at: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RecordError(f"{at} holds text that is not valid Unicode (a lone surrogate)") from error
    return text


def _parsed(data: bytes, name: str) -> Json:
    """The JSON value in these bytes; doubled keys, too many values and too deep nesting are refused.

    Raises:
        RecordError: If they are not JSON, or too large.
    """
    if len(data) > MAX_BYTES:
        raise RecordError(f"{name} has {len(data):,} bytes; a record has at most {MAX_BYTES:,}")
    n_values = data.count(b",") + data.count(b"[") + data.count(b"{")
    if n_values > MAX_VALUES:  # counted before anything is read into memory
        raise RecordError(f"{name} has about {n_values:,} values; a record has at most {MAX_VALUES:,}")
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_without_doubles)
        return _checked(value, name, 0)
    except RecordError:
        raise
    except RecursionError as error:
        raise RecordError(f"{name} is nested more than {MAX_DEPTH} deep") from error
    except ValueError as error:  # bad JSON, bad UTF-8, a number of thousands of digits
        raise RecordError(f"{name} is damaged (not JSON: {error}); restore the file or run again") from error


def _without_doubles(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return found
