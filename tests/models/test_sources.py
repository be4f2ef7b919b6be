"""A model that is named in words: a factory, or a folder with a configuration."""

import json
import sys

import pytest
import torch
from torch import nn

from modscope.errors import DataError, StudyError
from modscope.models.sources import read_model


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes a module for the test; what it puts into sys is taken out again."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name: str, code: str) -> str:
        (tmp_path / f"{name}.py").write_text("import torch\nfrom torch import nn\n" + code)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return name

    return write


def test_a_factory_gives_a_model_and_its_example_inputs(written):
    name = written("source_pair", "def make():\n    return nn.Linear(3, 2), torch.ones(1, 3)\n")
    model, inputs = read_model(f"{name}:make")
    assert isinstance(model, nn.Linear)
    assert inputs.shape == (1, 3)


def test_a_factory_of_a_model_alone_needs_a_shape(written):
    name = written("source_alone", "def make():\n    return nn.Linear(3, 2)\n")
    assert read_model(f"{name}:make", shape=(4, 3))[1].shape == (4, 3)
    with pytest.raises(StudyError, match="without example inputs"):
        read_model(f"{name}:make")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "neither a folder nor module.path:factory"),
        ("no_such_module:make", "could not be called: ModuleNotFoundError"),
        ("torch:no_such_function", "could not be called: AttributeError"),
    ],
)
def test_a_source_that_names_nothing_is_refused(source, message):
    with pytest.raises(StudyError, match=message):
        read_model(source)


def test_a_folder_without_a_configuration_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"has no config\.json"):
        read_model(str(tmp_path))
    (tmp_path / "config.json").write_text("no json")
    with pytest.raises(DataError, match="could not be read as a model"):
        read_model(str(tmp_path))


def test_a_folder_is_read_from_its_shapes_alone(tmp_path):
    pytest.importorskip("transformers")
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 1, "n_embd": 8, "n_head": 2}
    (tmp_path / "config.json").write_text(json.dumps({**config, "vocab_size": 11}))
    model, inputs = read_model(str(tmp_path))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert inputs["input_ids"].dtype == torch.long
    assert model.transformer.wte.weight.shape == (11, 8)
