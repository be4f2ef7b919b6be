"""The residual network for small pictures: its shortcuts, and its published sizes."""

import pytest
import torch

from modscope.errors import WiringError
from modscope.models.resnet import CifarResNet, ResidualBlock


@pytest.mark.parametrize(("depth", "n_parameters"), [(20, 269_722), (56, 853_018)])
def test_a_network_has_as_many_parameters_as_published(depth, n_parameters):
    assert sum(parameter.numel() for parameter in CifarResNet(depth).parameters()) == n_parameters


def test_a_shortcut_keeps_every_second_pixel_between_channels_of_zeros():
    stream = torch.arange(2 * 4 * 4.0).reshape(1, 2, 4, 4) + 1
    shortcut = ResidualBlock(2, 4, stride=2).shortcut(stream)
    assert shortcut.shape == (1, 4, 2, 2)
    assert bool((shortcut[:, [0, 3]] == 0).all())
    assert shortcut[0, 1].tolist() == [[1, 3], [9, 11]]
    assert shortcut[0, 2].tolist() == [[17, 19], [25, 27]]


def test_a_block_whose_second_norm_is_zero_passes_a_positive_stream_on():
    block = ResidualBlock(3, 3, stride=1).eval()
    torch.nn.init.zeros_(block.bn2.weight)
    stream = torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(stream), stream)


def test_impossible_depths_are_refused():
    for depth in (2, 21):
        with pytest.raises(WiringError, match=f"depth {depth}"):
            CifarResNet(depth)
