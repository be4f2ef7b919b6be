"""Published networks do what their authors, and the notes on the files, say."""

import math
import re

import pytest
import torch

from modscope.data.cifar10 import cifar10_test
from modscope.data.examples import Examples
from modscope.data.idx import fashion_mnist, mnist
from modscope.data.imagenet_sample import imagenet_sample
from modscope.data.pieces import BEGIN, joined, token_pieces
from modscope.errors import DataError
from modscope.models import NETWORKS, PublishedNetwork, load
from modscope.tasks.algorithmic import (
    balanced_brackets,
    bracket_strings,
    modular_addition,
    modular_sums,
    number_lists,
    sorting,
)
from modscope.tasks.task import evaluate


def _n_right(network: PublishedNetwork, examples: Examples, *, k: int = 1, first_class: int = 0) -> int:
    """Images whose class is among the k largest outputs."""
    right = 0
    with torch.no_grad():
        for images, classes in examples.batches(100):
            best = network.model(network.prepare(images)).topk(k, dim=1).indices - first_class
            right += int((best == classes[:, None]).any(dim=1).sum())
    return right


def test_an_unknown_network_lists_the_known_ones(tmp_path):
    with pytest.raises(DataError, match=r"no published network 'resnet18'.*resnet20_cifar10"):
        load("resnet18", folder=tmp_path)


def test_a_missing_file_says_where_it_should_be(tmp_path):
    with pytest.raises(DataError, match=r"lenet_mnist\.safetensors.*MODSCOPE_DATA"):
        load("lenet_mnist", folder=tmp_path)


@pytest.mark.data
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_can_be_exported_and_says_where_it_comes_from(name, data_folder):
    network = load(name, folder=data_folder)
    program = torch.export.export(network.model, (network.example_inputs,), strict=False)
    with torch.no_grad():
        outputs = network.model(network.example_inputs)
        assert torch.allclose(program.module()(network.example_inputs), outputs, atol=1e-5)
    assert "@" in network.source
    assert network.licence
    assert not network.model.training


@pytest.mark.data
def test_loading_leaves_the_global_random_numbers_alone(data_folder):
    state = torch.get_rng_state()
    load("sorted_list_transformer", folder=data_folder)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "read", "n_right"),
    [
        ("lenet_mnist", mnist, 9922),
        ("lenet_small_l1_mnist", mnist, 9843),
        ("lenet_fashion_mnist", fashion_mnist, 9045),
    ],
)
def test_a_lenet_names_as_many_test_images_as_published(name, read, n_right, data_folder):
    assert _n_right(load(name, folder=data_folder), read(data_folder).test) == n_right


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.parametrize(("name", "n_right"), [("resnet20_cifar10", 9173), ("resnet56_cifar10", 9339)])
def test_a_resnet_names_as_many_test_images_as_published(name, n_right, data_folder):
    assert _n_right(load(name, folder=data_folder), cifar10_test(data_folder)) == n_right


@pytest.mark.data
def test_mobilenet_names_71_percent_of_the_sample(data_folder):
    network, sample = load("mobilenet_v1_0.5_160_imagenet", folder=data_folder), imagenet_sample(data_folder)
    assert round(_n_right(network, sample, first_class=1) / len(sample), 3) == 0.710
    assert round(_n_right(network, sample, k=5, first_class=1) / len(sample), 3) == 0.871


@pytest.mark.data
def test_modular_addition_is_right_on_every_pair_with_the_stored_losses(data_folder):
    network, task = load("modadd113_grokked", folder=data_folder), modular_addition(modular_sums())
    train, test = (evaluate(network.model, task, split=split) for split in ("train", "test"))
    assert (train.accuracy, test.accuracy) == (1.0, 1.0)
    assert train.n_examples + test.n_examples == 12_769
    assert train.loss == pytest.approx(9.202e-9, rel=1e-3)
    assert test.loss == pytest.approx(4.988e-7, rel=1e-3)


@pytest.mark.data
def test_the_brackets_network_is_right_on_99_8_percent(data_folder):
    strings = bracket_strings(0, 4000)
    evaluation = evaluate(load("brackets_transformer", folder=data_folder).model, balanced_brackets(strings, strings))
    assert evaluation.accuracy == pytest.approx(0.998, abs=0.005)


@pytest.mark.data
def test_the_sorting_network_is_right_on_99_9_percent_and_less_where_numbers_repeat(data_folder):
    network = load("sorted_list_transformer", folder=data_folder).model
    different, repeating = number_lists(0, 4000), number_lists(0, 4000, may_repeat=True)
    assert evaluate(network, sorting(different, different)).accuracy == pytest.approx(0.999, abs=0.005)
    assert evaluate(network, sorting(repeating, repeating)).accuracy == pytest.approx(0.926, abs=0.005)
    with torch.no_grad():
        is_right = network(different.inputs)[:, 10:20].argmax(dim=2) == different.targets
    assert float(is_right.all(dim=1).float().mean()) == pytest.approx(0.991, abs=0.005)


@pytest.mark.data
def test_the_language_model_samples_text_that_it_is_sure_of_and_that_has_words(data_folder):
    """Wrong rotary positions, a wrong norm or a wrong gate raise the loss of these texts from 1.8 to above 3."""
    network = load("aidreams260K", folder=data_folder).model
    tokens, losses = _sampled(network, n_texts=32, length=60)
    assert float(losses) < 2.2 < 0.5 * math.log(512)
    words = re.findall(r"[a-z]+", " ".join(joined(row, token_pieces(data_folder)) for row in tokens.tolist()).lower())
    common = {"of", "i", "a", "the", "through", "like", "into", "as", "and", "with", "my", "whispers", "within"}
    assert sum(word in common for word in words) > 0.15 * len(words) > 50


def _sampled(network: torch.nn.Module, *, n_texts: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts drawn token by token, and the mean loss of what was drawn."""
    draws = torch.Generator().manual_seed(0)
    tokens, losses = torch.full((n_texts, 1), BEGIN), []
    with torch.no_grad():
        for _ in range(length):
            log_probability = network(tokens)[:, -1].log_softmax(dim=1)
            drawn = torch.multinomial(log_probability.exp(), 1, generator=draws)
            losses.append(-log_probability.gather(1, drawn).mean())
            tokens = torch.cat([tokens, drawn], dim=1)
    return tokens, torch.stack(losses).mean()
