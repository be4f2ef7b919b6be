"""CIFAR-10's sheets, cut into images."""

import pytest
import torch

from modscope.data.cifar10 import cifar10, cifar10_test, cut


def test_a_sheet_is_cut_row_by_row_with_channels_first():
    images = torch.arange(6 * 4 * 4 * 3, dtype=torch.uint8).reshape(2, 3, 4, 4, 3)  # rows, columns, y, x, channels
    sheet = torch.cat([torch.cat(list(row), dim=1) for row in images])
    assert torch.equal(cut(sheet, 4), images.flatten(0, 1).permute(0, 3, 1, 2))


@pytest.mark.data
def test_the_test_images_are_distinct_and_balanced(data_folder):
    test = cifar10_test(data_folder)
    assert test.inputs.shape == (10_000, 3, 32, 32)
    assert len({image.numpy().tobytes() for image in test.inputs}) == 10_000
    assert test.targets.bincount().tolist() == [1000] * 10


@pytest.mark.data
@pytest.mark.slow
def test_the_training_images_have_the_known_mean_and_spread(data_folder):
    images = cifar10(data_folder).train.inputs
    values = torch.arange(256, dtype=torch.float64) / 255
    share = (
        torch.stack([images[:, channel].flatten().bincount(minlength=256) for channel in range(3)])
        / images[:, 0].numel()
    )
    mean = share.double() @ values
    spread = (share.double() @ values**2 - mean**2).sqrt()
    assert mean.tolist() == pytest.approx([0.49139968, 0.48215841, 0.44653091], abs=1e-6)
    assert spread.tolist() == pytest.approx([0.24703223, 0.24348513, 0.26158784], abs=1e-6)
