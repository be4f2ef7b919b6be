"""The units of each model family, counted by hand; which of them form two sides; what both ways of reading find."""

from __future__ import annotations

from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

from families import FAMILIES, gpt2, resnet18, vgg16
from modscope.wiring import trace
from modscope.wiring.trace import read_wiring
from modscope.wiring.wiring import Wiring

# inputs, then group after group; a residual stream counts once
UNITS = {
    "mlp": 6 + 9 + 7 + 4,
    "norm_mlp": 6 + 9 + 4,
    "lenet": 1 + 4 + 6 + 10 + 3,
    "vgg": 3 + 4 + 5 + 6 + 7 + 9 + 8 + 3,
    "resnet": 3 + 4 + 4 + 6 + 6 + 3,
    "bottleneck_resnet": 3 + 3 + (3 + 3 + 12) + (3 + 3) + (4 + 4 + 16) + 5,
    "cifar_resnet": 3 + 4 + 4 + 8 + (8 - 4) + 3,  # four of the eight channels of stage 2 are those of stage 1
    "densenet": 3 + 6 + 3 * (5 + 4) + 5,
    "mobilenet_v1": 3 + 4 + (4 + 6) + (6 + 8) + 5,
    "mobilenet": 3 + 5 + (8 + 8 + 3) + (7 + 7 + 3) + 4,  # the depth-wise unit and its gate are one
    "shufflenet": 3 + 6 + 12 + 6 + 4,
    "unet": 3 + 4 + 6 + 5 + 8 // 4 + 3,  # sub-pixel upsampling puts four channels into one
    "inception": 3 + 4 + 5 + 2 + 3,
    "conv1d": 3 + 5 + 4 + 2,
    "conv3d": 2 + 4 + 3,
    "transformer_pre_norm": 8 + 2 * (3 * 8 + 12) + 3,
    "transformer_post_norm": 8 + 2 * (3 * 8 + 12) + 3,
    "sequence_to_sequence": (8 + 24 + 12) + (8 + 24 + 24 + 12),
    "multihead_attention": 8 + 8 + 24 + 8,
    "multihead_attention_other_sizes": 8 + 6 + 24 + 8,
    "head_weights": 8 + 3 * 6 + 12 + 11,
    "lstm": 6 + 5 + 3,
    "stacked_bidirectional_lstm": 6 + 4 * 5 + 3,
    "projected_lstm": 6 + 5 + 4 + 3,
    "gru": 6 + 5 + 5 + 3,
    "rnn": 6 + 5 + 3,
    "gru_cell": 4 + 5 + 2,
    "siamese": 6 + 5 + 2,  # the two inputs are read by the same columns
    "early_exit": 6 + 5 + 2,
    "tied_autoencoder": 6 + 4 + 6,
    "swiglu": 6 + 9 + 4,
    "weight_normed": 6 + 5 + 3,
    "gpt2": 12 + 2 * (36 + 48) + 11,
    "llama": 16 + 2 * (16 // 2 + 8 // 2 + 8 + 20) + 11,  # rotated pairs of queries and keys are one unit
    "bert": 12 + 2 * (36 + 20) + 12 + 4,
    "vit": 3 + 12 + 2 * (36 + 20) + 5,
    "t5": 12 + 2 * 3 + 2 * (45 + 20) + 2 * (45 + 45 + 20) + 11,
    "bart": 8 + 2 * (24 + 12) + 2 * (24 + 24 + 14),
    "mamba": 8 + 2 * (16 + 16 + 4 + 2 * 3) + 11,
    "hf_resnet": 3 + 6 + (8 + 8) + (12 + 12) + 3,
    "convnext": 3 + 6 + (6 + 24) + 8 + (8 + 32) + 3,
    "swin": 3 + 6 + 2 * (18 + 24) + 12 + (36 + 48) + 3,
    "gpt_neox": 16 + 2 * (3 * 16 - 2 * 2 + 20) + 11,  # a quarter of each head's eight dimensions is rotated: one pair
}
# A way around with an odd number of weights: a shortcut with a weight beside a block of two weights, or a residual
# branch of one or three weights.
NOT_TWO_SIDED = {"resnet", "bottleneck_resnet", "hf_resnet", "mobilenet", "early_exit", "mamba", "convnext"}


def is_two_sided(wiring: Wiring) -> bool:
    """Whether no edge joins two units of one colour, by breadth-first colouring of all units."""
    neighbours: list[set[int]] = [set() for _ in range(wiring.n_units)]
    for connection in wiring.connections:
        if connection.kind != "weight":
            continue
        sources, targets = np.broadcast_arrays(connection.sources, connection.targets)
        joins = (sources >= 0) & (targets >= 0)
        for source, target in set(zip(sources[joins].tolist(), targets[joins].tolist(), strict=True)):
            neighbours[source].add(target)
            neighbours[target].add(source)
    colour = [-1] * wiring.n_units
    for start in range(wiring.n_units):
        if colour[start] >= 0:
            continue
        colour[start], queue = 0, deque([start])
        while queue:
            unit = queue.popleft()
            for other in neighbours[unit]:
                if colour[other] < 0:
                    colour[other] = 1 - colour[unit]
                    queue.append(other)
                elif colour[other] == colour[unit]:
                    return False
    return True


def read(name: str) -> Wiring:
    factory, inputs = FAMILIES[name]
    torch.manual_seed(0)
    return read_wiring(factory(), inputs)


@pytest.mark.parametrize("name", UNITS)
def test_units_are_those_counted_by_hand(name: str) -> None:
    wiring = read(name)
    assert wiring.n_units == UNITS[name]
    assert sorted(np.concatenate([group.unit_ids for group in wiring.groups])) == list(range(wiring.n_units))


@pytest.mark.parametrize(
    "name", [name for name in UNITS if "lstm" not in name and name not in ("gru", "rnn", "gru_cell")]
)
def test_networks_are_two_sided_unless_a_way_around_has_an_odd_number_of_weights(name: str) -> None:
    assert is_two_sided(read(name)) is (name not in NOT_TWO_SIDED)


@pytest.mark.slow
def test_units_of_networks_at_full_size() -> None:
    image = torch.zeros(1, 3, 224, 224)
    assert read_wiring(resnet18(), image).n_units == 3883
    with torch.device("meta"):
        small_gpt2 = gpt2(n_layer=12, n_embd=768, n_head=12, vocab_size=50257, n_positions=1024)
        vgg = vgg16()
    assert read_wiring(vgg, image).n_units == 13419
    assert read_wiring(small_gpt2, {"input_ids": torch.arange(8)[None]}).n_units == 115537


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "mixtral"])
def test_one_recorded_run_finds_what_export_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    factory, inputs = FAMILIES[name]
    torch.manual_seed(0)
    model = factory()
    exported = read_wiring(model, inputs)

    def refuse(*_: object) -> None:
        raise RuntimeError("export is switched off")

    monkeypatch.setattr(trace, "exported_program", refuse)
    recorded = read_wiring(model, inputs)
    assert recorded.to_frame().equals(exported.to_frame())
    assert connections_of(recorded) == connections_of(exported)
    for name, labels in exported.groupings.items():
        np.testing.assert_array_equal(recorded.groupings[name], labels)
    assert any("export" in warning for warning in recorded.warnings)


def connections_of(wiring: Wiring) -> set[tuple[str, str, bytes, bytes]]:
    return {(c.parameter, c.kind, c.sources.tobytes(), c.targets.tobytes()) for c in wiring.connections}


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_broadcast_to_the_stored_parameter(name: str) -> None:
    wiring = read(name)
    for connection in wiring.connections:
        shape = tuple(connection.weight.shape)
        for ids in (connection.sources, connection.targets, connection.source_scale, connection.target_scale):
            if ids is not None:
                assert np.broadcast_shapes(ids.shape, shape) == shape
        assert max(connection.sources.max(), connection.targets.max()) < wiring.n_units


# the lengths of a normalised weight's rows; biases of attention patterns, which are no units
WITHOUT_UNITS = ("original0", "relative_position_bias_table")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_weight_is_a_connection_or_belongs_to_units(name: str) -> None:
    factory, inputs = FAMILIES[name]
    model: nn.Module = factory()
    wiring = read_wiring(model, inputs)
    known = {c.parameter for c in wiring.connections} | {p.parameter for p in wiring.unit_parameters}
    unknown = {parameter for parameter, _ in model.named_parameters()} - known
    unknown = {parameter for parameter in unknown if not parameter.endswith(WITHOUT_UNITS)}
    assert not unknown or wiring.warnings
