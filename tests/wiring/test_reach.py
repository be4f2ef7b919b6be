"""A unit reaches the columns that the wiring says, and no others: found by changing numbers in cut networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from families import FAMILIES
from modscope.calling import call, evaluation_mode
from modscope.wiring.trace import read_wiring
from modscope.wiring.wiring import Wiring
from reference.reach import Cut, changed_columns, cut_run, nothing

# What the probe cannot cut: weights that are computed or copied before use, one weight in two roles, gates of one unit
# on many others (the wiring warns of them), and recurrent layers that run as one operation.
RECURRENT = {"lstm", "stacked_bidirectional_lstm", "projected_lstm", "gru", "rnn"}
NOT_PROBED = {"weight_normed", "head_weights", "tied_autoencoder", "mixtral", "mamba"} | RECURRENT
PROBED = [name for name in FAMILIES if name not in NOT_PROBED]


class Said:
    """What a wiring says of each entry of each stored parameter, as flat arrays."""

    def __init__(self, wiring: Wiring) -> None:
        self.flat: dict[tuple[str, bool], tuple[np.ndarray, np.ndarray]] = {}
        for connection in wiring.connections:
            if connection.kind != "weight":
                continue
            shape = tuple(connection.weight.shape)
            targets = np.broadcast_to(connection.targets, shape).reshape(-1)
            sources = np.broadcast_to(connection.sources, shape).reshape(-1)
            key = (connection.parameter, bool((sources < 0).all()))
            old = self.flat.get(key, (np.full_like(sources, -1), np.full_like(targets, -1)))
            self.flat[key] = (np.where(targets >= 0, sources, old[0]), np.where(targets >= 0, targets, old[1]))

    def units(self, cut: Cut, side: int) -> Tensor:
        """Source (0) or target (1) of each entry of a cut weight."""
        key = (cut.name, cut.is_embedding)
        flat = self.flat.get(key, self.flat.get((cut.name, not cut.is_embedding)))
        assert flat is not None, f"the wiring has no connection for {cut.name}"
        return torch.from_numpy(np.append(flat[side], -1))[cut.places]


def probe(model: nn.Module, inputs: object, units: np.ndarray | None = None) -> int:
    """Change each of some written units; the number of columns that were reached in all."""
    wiring = read_wiring(model, inputs)
    said, n_reached = Said(wiring), 0
    written = np.unique(np.concatenate([flat[1] for flat in said.flat.values()]))
    written = written[written >= 0]
    of_input = {unit for group in wiring.groups if group.depth == 0 for unit in group.unit_ids}  # not changed here
    with evaluation_mode(model):
        before = cut_run(model, lambda: call(model, inputs), nothing)
        for unit in written if units is None else np.intersect1d(written, units):
            after = cut_run(
                model, lambda: call(model, inputs), lambda cut, u=unit: (said.units(cut, 1) == u).any(-2), before.seen
            )
            for cut, changed in changed_columns(before, after):
                expected = (said.units(cut, 0) == unit).any(-1)
                seen = changed | expected if unit in of_input else changed
                assert torch.equal(seen, expected), f"unit {unit} at {cut.name}"
                n_reached += int(changed.sum())
    return n_reached


@pytest.mark.parametrize("name", PROBED)
def test_a_changed_unit_reaches_the_columns_that_the_wiring_says(name: str) -> None:
    factory, inputs = FAMILIES[name]
    torch.manual_seed(0)
    model = factory()
    n_units = read_wiring(model, inputs).n_units
    some = np.random.default_rng(0).choice(n_units, size=min(n_units, 16), replace=False)
    assert probe(model, inputs, some) > 0


# -- random networks -----------------------------------------------------------------------------------------------


class Piece(nn.Module):
    """One piece of a random network on (batch, channels, length): an operation with its weights, if it has any."""

    def __init__(self, kind: str, channels: int, size: int) -> None:
        super().__init__()
        self.kind, self.channels, self.size = kind, channels, size
        self.n_out = channels
        if kind in ("conv", "dense", "transposed", "beside"):
            self.n_out = size if kind != "beside" else channels + size
            layers = {"transposed": nn.ConvTranspose1d(channels, size, 1), "dense": nn.Linear(channels, size)}
            self.layer = layers.get(kind, nn.Conv1d(channels, size, 3, padding=1))
        elif kind == "grouped":
            self.n_out = 2 * channels
            self.layer = nn.Conv1d(channels, 2 * channels, 1, groups=channels)
        elif kind in ("residual", "gated"):
            self.layer, self.other = nn.Conv1d(channels, channels, 1), nn.Conv1d(channels, channels, 1, bias=False)
        elif kind == "norm":
            self.layer = nn.BatchNorm1d(channels) if size % 2 else nn.GroupNorm(1, channels)
        elif kind == "halved":
            self.n_out = (channels + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, "_" + self.kind)(x)

    def _conv(self, x: Tensor) -> Tensor:
        return self.layer(x)

    _transposed = _grouped = _norm = _conv

    def _dense(self, x: Tensor) -> Tensor:
        return self.layer(x.transpose(1, 2)).permute(0, 2, 1)

    def _beside(self, x: Tensor) -> Tensor:
        return torch.cat([self.layer(x), x], 1)

    def _residual(self, x: Tensor) -> Tensor:
        return x + self.layer(F.gelu(self.other(x)))

    def _gated(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.layer(x)) * self.other(x)

    def _halved(self, x: Tensor) -> Tensor:
        return x[:, ::2]

    def _flipped(self, x: Tensor) -> Tensor:
        return torch.stack(list(x.flip(1).unbind(1)), 1)

    def _shuffled(self, x: Tensor) -> Tensor:
        groups = 2 if self.channels % 2 == 0 else 1
        return x.view(x.shape[0], groups, -1, x.shape[2]).transpose(1, 2).reshape(x.shape)

    def _padded(self, x: Tensor) -> Tensor:
        return F.pad(x, (1, 0)) + F.pad(x, (0, 1))

    def _in_place(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, :1].mul_(2)
        return y

    def _pooled(self, x: Tensor) -> Tensor:
        return F.max_pool1d(x, 3, 1, 1)


KINDS = ["conv", "dense", "transposed", "beside", "grouped", "residual", "gated", "norm", "halved", "flipped"]
KINDS += ["shuffled", "padded", "in_place", "pooled"]


def random_network(pieces: list[tuple[str, int]]) -> nn.Module:
    network = [Piece("conv", 2, 4)]
    for kind, size in pieces:
        network.append(Piece(kind, network[-1].n_out, size))
    return nn.Sequential(*network, Piece("conv", network[-1].n_out, 2))


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(2, 5)), min_size=1, max_size=6))
@settings(deadline=None, max_examples=25)
def test_a_changed_unit_reaches_what_the_wiring_says_in_random_networks(pieces: list[tuple[str, int]]) -> None:
    torch.manual_seed(0)
    assert probe(random_network(pieces), torch.linspace(-1, 1, 20).reshape(2, 2, 5)) > 0
