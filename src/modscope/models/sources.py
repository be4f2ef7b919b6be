"""Where does a model come from, when it is named in words?"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modscope.calling import Inputs, check_model
from modscope.errors import DataError, StudyError
from modscope.models.published import NETWORKS, load

_TOKENS = 8  # length of an example text


def read_model(source: str, *, shape: tuple[int, ...] | None = None) -> tuple[nn.Module, Inputs]:
    """A model and example inputs for it.

    Args:
        source: `module.path:factory`, where the factory takes no arguments and returns a model, or a model and its
            example inputs; or the name of a published network, see `modscope.models.NETWORKS`; or a folder with a
            Hugging Face `config.json`. Of a folder only shapes are read: the model lies on the meta device, so a
            model that does not fit into memory has a wiring too.
        shape: Shape of a float example input, batch first, for a factory that returns a model alone.

    Raises:
        StudyError: If `source` names nothing that can be read, or example inputs are missing.
        DataError: If the folder holds no configuration that transformers can build.
    """
    if Path(source).is_dir():
        return _from_folder(Path(source), shape)
    if source in NETWORKS:
        published = load(source)
        return published.model, published.example_inputs
    if ":" not in source:
        raise StudyError(
            f"'{source}' is neither a folder nor module.path:factory, nor a published network ({', '.join(NETWORKS)})"
        )
    return _from_factory(source, shape)


def _from_factory(source: str, shape: tuple[int, ...] | None) -> tuple[nn.Module, Inputs]:
    module_path, _, name = source.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: the user's module lies in the folder of the call
    try:
        factory = getattr(importlib.import_module(module_path), name)
        made = factory()
    except Exception as error:
        raise StudyError(f"'{source}' could not be called: {type(error).__name__}: {error}") from error
    made_model, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    model = check_model(made_model)
    if shape is not None:
        return model, torch.zeros(shape)
    if inputs is None:
        raise StudyError(
            f"'{source}' returned a model without example inputs; return (model, inputs), or give --shape 1,3,224,224"
        )
    return model, inputs


def _from_folder(folder: Path, shape: tuple[int, ...] | None) -> tuple[nn.Module, Inputs]:
    if not (folder / "config.json").is_file():
        raise DataError(f"'{folder}' has no config.json; give a Hugging Face model folder, or module.path:factory")
    try:
        import transformers
    except ImportError as error:
        raise StudyError("a model folder needs transformers; install modscope[hf]") from error
    try:
        architecture = json.loads((folder / "config.json").read_text()).get("architectures", [None])[0]
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        factory = getattr(transformers, architecture) if architecture else transformers.AutoModel
        with torch.device("meta"):
            model = factory._from_config(config) if architecture else factory.from_config(config)
    except Exception as error:
        raise DataError(f"'{folder}' could not be read as a model: {type(error).__name__}: {error}") from error
    return model, torch.zeros(shape, device="meta") if shape is not None else _example_for(model)


def _example_for(model: Any) -> Inputs:
    """One short text or one picture, as the configuration describes it."""
    config = model.config
    if model.main_input_name == "pixel_values":
        size = getattr(config, "image_size", 224)
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return {"pixel_values": torch.zeros(1, getattr(config, "num_channels", 3), height, width, device="meta")}
    tokens = torch.zeros(1, _TOKENS, dtype=torch.long, device="meta")
    inputs = {model.main_input_name: tokens}
    if getattr(config, "is_encoder_decoder", False):
        inputs["decoder_input_ids"] = tokens.clone()
    return inputs
