"""What is the residual network for small pictures?"""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from modscope.errors import WiringError


class CifarResNet(nn.Module):
    """A ResNet of three stages with 16, 32 and 64 channels, and shortcuts without weights.

    Args:
        depth: Number of weight layers, 6 n + 2: 20, 32, 44, 56, 110.
        n_classes: Number of outputs.

    Raises:
        WiringError: If there is no such depth.

    Source: He et al. 2016, section 4.2, shortcut option A.
    """

    def __init__(self, depth: int = 20, n_classes: int = 10) -> None:
        super().__init__()
        n_blocks, rest = divmod(depth - 2, 6)
        if rest or n_blocks < 1:
            raise WiringError(f"a CIFAR ResNet has 6 n + 2 layers (8, 14, 20, ...), got depth {depth}")
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, n_blocks, stride=1)
        self.layer2 = _stage(16, 32, n_blocks, stride=2)
        self.layer3 = _stage(32, 64, n_blocks, stride=2)
        self.linear = nn.Linear(64, n_classes)

    def forward(self, images: Float[Tensor, "examples 3 height width"]) -> Float[Tensor, "examples classes"]:
        """The logits of normalised images."""
        stream = F.relu(self.bn1(self.conv1(images)))
        stream = self.layer3(self.layer2(self.layer1(stream)))
        logits: Tensor = self.linear(stream.mean(dim=(2, 3)))
        return logits


class ResidualBlock(nn.Module):
    """Two convolutions that add to the stream; a stride halves the picture, new channels start at zero."""

    def __init__(self, n_inputs: int, n_outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_inputs, n_outputs, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_outputs)
        self.conv2 = nn.Conv2d(n_outputs, n_outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_outputs)
        self.stride = stride
        self.n_new_channels = n_outputs - n_inputs

    def forward(self, stream: Float[Tensor, "examples channels y x"]) -> Float[Tensor, "examples outputs v u"]:
        """The stream after this block."""
        change = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(stream)))))
        return F.relu(change + self.shortcut(stream))

    def shortcut(self, stream: Float[Tensor, "examples channels y x"]) -> Float[Tensor, "examples outputs v u"]:
        """The stream itself: every second pixel, between new channels of zeros, where the block changes its shape."""
        if self.stride == 1 and self.n_new_channels == 0:
            return stream
        above = self.n_new_channels // 2
        kept = stream[:, :, :: self.stride, :: self.stride]
        return F.pad(kept, (0, 0, 0, 0, above, self.n_new_channels - above))


def _stage(n_inputs: int, n_outputs: int, n_blocks: int, stride: int) -> nn.Sequential:
    first = ResidualBlock(n_inputs, n_outputs, stride)
    return nn.Sequential(first, *(ResidualBlock(n_outputs, n_outputs, 1) for _ in range(n_blocks - 1)))
