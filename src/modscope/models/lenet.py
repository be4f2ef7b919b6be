"""What are the small convolutional networks for MNIST?"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn


def lenet(n_classes: int = 10) -> nn.Sequential:
    """Two 5x5 convolutions and two linear layers, for pictures of 1 x 28 x 28.

    Source: LeCun et al. 1998, with ReLU and max pooling, and without the 84 units before the output.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 6, 5),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 5),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(256, 120),
            relu3=nn.ReLU(),
            output=nn.Linear(120, n_classes),
        )
    )


def small_lenet(n_classes: int = 10) -> nn.Sequential:
    """Two 3x3 convolutions and one linear layer, for pictures of 1 x 28 x 28."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 6, 3),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 16, 3),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            output=nn.Linear(400, n_classes),
        )
    )
