"""Two digits at once: which pictures show two handwritten digits that have nothing to do with each other?"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int

from modscope.data.examples import DataSet, Examples
from modscope.errors import DataError
from modscope.randomness import Rng, generator

LEFT, RIGHT = 0, 1  # columns of the targets
N_IMAGES = 1797


def two_digits(rng: Rng, *, n_train: int = 20_000, n_test: int = 5_000, n_test_images: int = 360) -> DataSet:
    """Pairs of handwritten digits side by side, with the label of each side.

    Inputs are 8 x 16 pixels in [0, 1], row by row (128 values); targets are (left digit, right digit). The two sides
    are drawn independently, with replacement; no image of a test pair is in any training pair.

    Args:
        rng: Chooses the images of each split, then the pairs.
        n_train: Number of training pairs.
        n_test: Number of test pairs.
        n_test_images: How many of the 1,797 images are kept for test pairs.

    Raises:
        DataError: If a split would have no images or no pairs.

    Source: `sklearn.datasets.load_digits`, the test part of UCI's optical recognition of handwritten digits
    (Alpaydin & Kaynak 1998).
    """
    if not 0 < n_test_images < N_IMAGES:
        raise DataError(f"n_test_images must leave images on both sides (1 to {N_IMAGES - 1}), got {n_test_images}")
    if min(n_train, n_test) < 1:
        raise DataError(f"both splits need at least one pair, got n_train={n_train}, n_test={n_test}")
    rng = generator(rng)
    images, labels = _digits()
    shuffled = rng.permutation(N_IMAGES)
    test, train = shuffled[:n_test_images], shuffled[n_test_images:]
    return DataSet(
        train=_pairs(images[train], labels[train], rng.integers(len(train), size=(n_train, 2))),
        test=_pairs(images[test], labels[test], rng.integers(len(test), size=(n_test, 2))),
    )


def _pairs(
    images: Float[np.ndarray, "images 8 8"], labels: Int[np.ndarray, " images"], chosen: Int[np.ndarray, "pairs 2"]
) -> Examples:
    pictures = np.concatenate([images[chosen[:, LEFT]], images[chosen[:, RIGHT]]], axis=2)  # (pairs, 8, 16)
    return Examples(torch.from_numpy(pictures.reshape(len(chosen), -1)), torch.from_numpy(labels[chosen]))


@cache
def _digits() -> tuple[Float[np.ndarray, "images 8 8"], Int[np.ndarray, " images"]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)
