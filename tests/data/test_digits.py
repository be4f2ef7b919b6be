"""Two digits at once: what a picture holds, and that test pairs are new."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from modscope.data.digits import two_digits
from modscope.errors import DataError


def _sides(inputs: torch.Tensor) -> np.ndarray:
    pictures = inputs.reshape(-1, 8, 16).numpy()
    return np.concatenate([pictures[:, :, :8], pictures[:, :, 8:]]).reshape(-1, 64)


def test_no_image_of_a_test_pair_is_in_a_training_pair():
    data = two_digits(0, n_train=3000, n_test=1000)
    train = {side.tobytes() for side in _sides(data.train.inputs)}
    test = {side.tobytes() for side in _sides(data.test.inputs)}
    assert len(test) > 300
    assert not train & test


def test_both_sides_are_digits_with_their_own_label():
    data = two_digits(1, n_train=200, n_test=50)
    digits = load_digits()
    label_of = {
        (image / 16).astype(np.float32).tobytes(): label
        for image, label in zip(digits.data, digits.target, strict=True)
    }
    sides = _sides(data.train.inputs)
    assert [label_of[side.tobytes()] for side in sides] == data.train.targets.T.flatten().tolist()
    assert sides.min() == 0
    assert sides.max() == 1


def test_the_two_sides_have_nothing_to_do_with_each_other():
    labels = two_digits(2).train.targets.numpy()
    together = np.histogram2d(labels[:, 0], labels[:, 1], bins=10)[0] / len(labels)
    assert together == pytest.approx(np.outer(together.sum(axis=1), together.sum(axis=0)), abs=0.003)


def test_the_same_rng_gives_the_same_pairs():
    first, second = two_digits(3, n_train=20, n_test=5), two_digits(np.random.default_rng(3), n_train=20, n_test=5)
    other = two_digits(4, n_train=20, n_test=5)
    assert torch.equal(first.train.inputs, two_digits(3, n_train=20, n_test=5).train.inputs)
    assert first.train.inputs.shape == second.train.inputs.shape == (20, 128)
    assert not torch.equal(first.test.targets, other.test.targets)


def test_empty_splits_are_refused():
    with pytest.raises(DataError, match="n_train=0"):
        two_digits(0, n_train=0)
    with pytest.raises(DataError, match="n_test_images"):
        two_digits(0, n_test_images=1797)
