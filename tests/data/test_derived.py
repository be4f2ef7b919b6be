"""Data sets made from others, or from nothing, are what their names say."""

import numpy as np
import pytest
import torch

from modscope.data.derived import halves, lines, mixed, noise, polynomials, separated, stacked
from modscope.data.examples import DataSet, Examples
from modscope.errors import DataError


def _marked(n_examples: int, value: int = 0) -> DataSet:
    """Pictures that are all of one grey: their class times 20, plus a value that tells the data set."""
    classes = torch.arange(n_examples) % 10
    pictures = (20 * classes + value).to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4).clone()
    return DataSet(Examples(pictures, classes), Examples(pictures, classes))


def test_the_class_of_lines_is_their_number_less_one():
    data = lines(0, n_train=300, n_test=20)
    columns = data.train.inputs[:, 0, 0] == 255
    assert torch.equal(columns.sum(dim=1) - 1, data.train.targets)
    assert torch.equal(data.train.inputs, data.train.inputs[:, :, :1].expand(-1, -1, 28, -1))
    assert data.train.targets.unique().tolist() == list(range(10))
    assert float(columns.float().mean(dim=0).std()) < 0.05  # every column is as likely


def test_noise_is_uniform_and_has_nothing_to_do_with_its_class():
    data = noise(0, n_train=500, n_test=20)
    assert float(data.train.inputs.float().mean()) == pytest.approx(127.5, abs=1)
    means = [data.train.inputs[data.train.targets == k].float().mean().item() for k in range(10)]
    assert np.ptp(means) < 3


def test_halves_are_two_pictures_and_their_sum():
    data = halves(_marked(200), rng=0).train
    left, right = data.inputs[..., :2], data.inputs[..., 2:]
    assert data.inputs.shape == (200, 1, 4, 4)
    first, second = (side[:, 0, 0, 0].long() // 20 for side in (left, right))
    assert torch.equal(data.targets, (first + second) % 10)
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) > 60


def test_a_squeezed_pixel_is_the_mean_of_two_neighbours():
    picture = torch.tensor([[10, 20, 30, 50]], dtype=torch.uint8).expand(1, 1, 4, 4)
    one = Examples(picture, torch.tensor([3]))
    assert halves(DataSet(one, one), rng=0).train.inputs[0, 0, 0].tolist() == [15, 40, 15, 40]


@pytest.mark.parametrize("make", [halves, stacked])
def test_pictures_of_one_class_keep_it(make):
    data = make(_marked(200), rng=0, same_class=True).train
    first, second = data.inputs[:, 0, 0, 0].long() // 20, data.inputs[:, -1, 0, -1].long() // 20
    assert torch.equal(first, data.targets)
    assert torch.equal(second, data.targets)
    assert data.targets.bincount().tolist() == [20] * 10
    assert not torch.equal(data.targets, data.targets.sort().values)


def test_pictures_of_one_class_are_paired_with_others():
    pictures = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    examples = Examples(pictures, torch.arange(100) % 2)
    data = stacked(DataSet(examples, examples), rng=0, same_class=True).train
    assert float((data.inputs[:, 0] == data.inputs[:, 1]).float().mean()) < 0.2


def test_stacked_pictures_are_channels():
    data = stacked(_marked(50), rng=0).train
    assert data.inputs.shape == (50, 2, 4, 4)
    classes = data.inputs[:, :, 0, 0].long() // 20
    assert torch.equal(data.targets, classes.sum(dim=1) % 10)


def test_a_mixture_has_the_examples_of_both():
    data = mixed(_marked(30), _marked(20, value=7), rng=0).train
    assert int((data.inputs[:, 0, 0, 0] % 20 == 7).sum()) == 20
    assert len(data) == 50
    assert torch.equal(data.targets, data.inputs[:, 0, 0, 0].long() // 20)


def test_separated_classes_tell_the_data_set():
    data = separated(_marked(30), _marked(20, value=7), rng=0).train
    is_second = data.inputs[:, 0, 0, 0] % 20 == 7
    assert torch.equal(is_second, data.targets >= 5)
    assert len(data) == 15 + 10


def test_polynomials_have_every_sum_of_monomials():
    data = polynomials(0, n_train=40, n_test=3).train
    x, y = data.inputs.double().T
    assert data.targets.shape == (40, 512)
    assert torch.equal(data.targets[:, 0], torch.zeros(40))
    assert torch.allclose(data.targets[:, 1], torch.ones(40))
    assert torch.allclose(data.targets[:, 0b100000110].double(), y + y**2 + x**2 * y**2, rtol=1e-4, atol=1e-4)
    assert torch.allclose(data.targets[:, 0b11000].double(), x + x * y, rtol=1e-4, atol=1e-4)


def test_the_same_rng_gives_the_same_data():
    for make in (lines, noise, polynomials):
        first, second, other = (make(seed, n_train=5, n_test=2) for seed in (1, 1, 2))
        assert torch.equal(first.train.inputs, second.train.inputs)
        assert not torch.equal(first.test.inputs, other.test.inputs)


def test_pictures_of_different_shapes_cannot_be_mixed():
    with pytest.raises(DataError, match=r"got \(1, 4, 4\) and \(1, 28, 28\)"):
        mixed(_marked(10), lines(0, n_train=10, n_test=10), rng=0)
