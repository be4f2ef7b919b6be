"""Facts about the wiring of small models that can be checked by hand."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from modscope.wiring.trace import read_wiring


def test_a_linear_layer_joins_its_columns_to_its_rows() -> None:
    wiring = read_wiring(nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 2)), torch.zeros(4, 3))
    assert wiring.n_units == 10
    assert [group.kind for group in wiring.groups] == ["input", "hidden", "output"]
    first, second = wiring.connections
    np.testing.assert_array_equal(first.sources, [[0, 1, 2]])
    np.testing.assert_array_equal(first.targets, np.arange(3, 8)[:, None])
    np.testing.assert_array_equal(second.sources, np.arange(3, 8)[None])


def test_flattened_channels_are_read_by_the_dense_layer_after_them() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4 * 4, 3))
    wiring = read_wiring(model, torch.zeros(1, 1, 4, 4))
    assert wiring.n_units == 1 + 2 + 3
    np.testing.assert_array_equal(wiring.connections[1].sources, np.repeat([1, 2], 16)[None])


def test_what_is_added_is_one_unit() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.up, self.down = nn.Linear(3, 4), nn.Linear(4, 6), nn.Linear(6, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.enter(x)
            return h + self.down(torch.relu(self.up(h)))

    wiring = read_wiring(Residual(), torch.zeros(2, 3))
    assert [(group.name, group.kind, group.size) for group in wiring.groups] == [
        ("x", "input", 3),
        ("stream", "stream", 4),
        ("up", "hidden", 6),
    ]


def test_a_mask_given_as_an_input_is_no_unit() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.leave(self.enter(x) * mask[:, None])

    wiring = read_wiring(Masked(), (torch.zeros(5, 3), torch.ones(5)))
    assert [(group.name, group.size) for group in wiring.groups] == [("x", 3), ("enter", 4), ("leave", 2)]
    assert "act on" in wiring.warnings[0]
