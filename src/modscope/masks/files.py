"""How are masks kept on disk? Described for readers without modscope in docs/mask-file-format.md."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modscope.errors import RecordError
from modscope.masks.mask import Mask, MaskSet

VERSION = 1
_METADATA_KEY = "modscope"
_KEPT, _LOGITS, _STRATA = "kept/", "logits/", "strata/"


def write_mask(mask: Mask, path: Path) -> Path:
    """The path of the file, written whole or not at all."""
    from safetensors.torch import save

    tensors = _tensors(mask)
    header: dict[str, Any] = {"format": "modscope.mask", "version": VERSION, "details": dict(mask.details)}
    header["parameters"] = list(mask.names)  # safetensors sorts by size and name; the model's order is worth keeping
    header["sha256"] = _digest(header, tensors)
    write_whole(path, save(tensors, metadata={_METADATA_KEY: canonical_json(header)}))
    return path


def read_mask(path: Path) -> Mask:
    """The mask in a file.

    Raises:
        RecordError: If the file is missing, damaged, no mask, or of a newer version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys()  # a list: the file itself cannot be iterated
            tensors = {name: file.get_tensor(name) for name in names}
    except FileNotFoundError:
        raise RecordError(f"no mask file at {path}") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read as a mask file ({error}); save the mask again") from error
    header = _header(metadata, path)
    if header.get("sha256") != _digest(header, tensors):
        raise RecordError(f"{path} was changed after it was written (its checksum differs); save the mask again")
    kept, logits, strata = (
        {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        for prefix in (_KEPT, _LOGITS, _STRATA)
    )
    if not kept or not isinstance(header.get("details"), dict):
        raise RecordError(f"{path} is damaged: it holds no mask")
    order = [name for name in header.get("parameters", []) if name in kept] or list(kept)
    return Mask({name: kept[name] for name in order}, logits or None, header["details"], strata or None)


def write_mask_set(mask_set: MaskSet, directory: Path) -> Path:
    """The folder with one file per mask and `masks.json`; the list is written last."""
    directory.mkdir(parents=True, exist_ok=True)
    tasks: dict[str, list[dict[str, str]]] = {}
    for number, name in enumerate(mask_set):
        tasks[name] = []
        for seed, mask in enumerate(mask_set.seeds(name)):
            path = write_mask(mask, directory / f"mask_{number}_{seed}.safetensors")
            tasks[name].append({"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
    entries = [{"task": name, "masks": files} for name, files in tasks.items()]
    listing = {"format": "modscope.mask_set", "version": VERSION, "tasks": entries}
    write_whole(directory / "masks.json", (canonical_json(listing) + "\n").encode())
    return directory


def read_mask_set(directory: Path) -> MaskSet:
    """The masks in a folder.

    Raises:
        RecordError: If a file is missing, damaged, or of a newer version.
    """
    path = directory / "masks.json"
    try:
        listing = json.loads(path.read_text())
    except FileNotFoundError:
        raise RecordError(f"{directory} holds no masks.json; give a folder that save_pretrained wrote") from None
    except ValueError as error:
        raise RecordError(f"{path} is damaged ({error}); save the masks again") from error
    _check_version(listing, "modscope.mask_set", path)
    try:
        masks = {
            entry["task"]: [_listed_mask(directory, listed["file"], listed["sha256"]) for listed in entry["masks"]]
            for entry in listing["tasks"]
        }
    except (KeyError, TypeError) as error:
        raise RecordError(f"{path} is damaged (no {error}); save the masks again") from error
    if not masks:
        raise RecordError(f"{path} is damaged: it lists no masks; save the masks again")
    return MaskSet(masks)


def write_whole(path: Path, content: bytes) -> None:
    """Nothing; `path` holds the content afterwards, or what it held before if the writing was broken off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that the same content always gives the same bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _tensors(mask: Mask) -> dict[str, Tensor]:
    tensors = {_KEPT + name: tensor.detach().cpu().contiguous().clone() for name, tensor in mask.kept.items()}
    for name, logits in (mask.logits or {}).items():
        tensors[_LOGITS + name] = logits.detach().float().cpu().contiguous().clone()
    for name, strata in (mask.strata or {}).items():
        tensors[_STRATA + name] = strata.detach().to(torch.uint8).cpu().contiguous().clone()
    return tensors


def _digest(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(canonical_json({**header, "sha256": ""}).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _header(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    if _METADATA_KEY not in metadata:
        raise RecordError(f"{path} is no mask file: it has no '{_METADATA_KEY}' metadata")
    try:
        header = json.loads(metadata[_METADATA_KEY])
    except ValueError as error:
        raise RecordError(f"{path} is damaged: its metadata is no JSON ({error})") from error
    _check_version(header, "modscope.mask", path)
    return dict(header)


def _check_version(header: Any, wanted: str, path: Path) -> None:
    if not isinstance(header, dict) or header.get("format") != wanted:
        raise RecordError(f"{path} is no file of format '{wanted}'")
    version = header.get("version")
    if not isinstance(version, int) or version < 1:
        raise RecordError(f"{path} has no valid format version, got {version!r}")
    if version > VERSION:
        raise RecordError(f"{path} is of format version {version}, this modscope reads up to {VERSION}; upgrade it")


def _listed_mask(directory: Path, name: str, sha256: str) -> Mask:
    path = directory / Path(name).name
    mask = read_mask(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
        raise RecordError(f"{path} is not the file that masks.json lists (its checksum differs)")
    return mask
