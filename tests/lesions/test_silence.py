"""Silencing a unit is the same as taking it away from everything that reads it, and leaves the model as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from families import FAMILIES
from fingerprint import differences, fingerprint
from modscope.calling import call, evaluation_mode
from modscope.errors import LesionError, TaskError
from modscope.lesions.silence import silenced
from modscope.masks.applied import applied
from modscope.masks.mask import Mask
from modscope.wiring.trace import read_wiring
from modscope.wiring.wiring import Connection, UnitGroup, Wiring

# mixtral: torch's grouped product asks for strides that this tiny model has not; without lesions too
# weight_normed, tied_autoencoder: columns of the stored weight are not what is read; see their own tests
NAMES = sorted(set(FAMILIES) - {"mixtral", "weight_normed", "tied_autoencoder"})
WITH_QUERIES_AND_KEYS = [
    "bart", "bert", "gpt2", "gpt_neox", "head_weights", "llama", "multihead_attention",
    "multihead_attention_other_sizes", "sequence_to_sequence", "swin", "t5", "transformer_post_norm",
    "transformer_pre_norm", "vit",
]  # fmt: skip
WITH_OUTPUTS = sorted(set(NAMES) - {"bart", "sequence_to_sequence"})  # these two end in a residual stream
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")  # torch's own, without lesions too
TOLERANCE = 1e-6  # of the largest output; most are equal bit for bit


@cache
def example(name: str) -> tuple[nn.Module, Any, Wiring]:
    factory, inputs = FAMILIES[name]
    torch.manual_seed(0)
    model = factory().eval()
    return model, inputs, read_wiring(model, inputs)


def outputs_of(model: nn.Module, inputs: Any) -> list[Tensor]:
    with torch.no_grad(), evaluation_mode(model):
        leaves = tree_leaves(call(model, inputs))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def unread_by_weights(wiring: Wiring) -> dict[str, np.ndarray]:
    """Query and key units, and output units."""
    coupled = [ids.ravel() for c in wiring.connections if c.kind == "query_key" for ids in (c.sources, c.targets)]
    return {
        "queries and keys": np.unique(np.concatenate([np.zeros(0, np.int64), *coupled])),
        "outputs": np.concatenate([np.zeros(0, np.int64), *(g.unit_ids for g in wiring.groups if g.kind == "output")]),
    }


def units_of(wiring: Wiring, what: str) -> np.ndarray:
    """A third of the units that are read by weights alone ("weights"), of queries and keys, or of outputs."""
    by_kind = unread_by_weights(wiring)
    others = np.concatenate(list(by_kind.values()))
    pool = by_kind.get(what, np.setdiff1d(np.arange(wiring.n_units), others))
    return np.random.default_rng(0).choice(pool, max(1, len(pool) // 3), replace=False)


def untied(model: nn.Module, wiring: Wiring) -> tuple[nn.Module, dict[int, Tensor]]:
    """A copy in which every reading connection has a parameter of its own, by index of the connection."""
    model = copy.deepcopy(model)
    owners = dict(model.named_parameters(remove_duplicate=False))
    own: dict[int, Tensor] = {}
    for index, connection in enumerate(wiring.connections):
        if connection.kind != "weight" or not (connection.sources >= 0).any():
            continue
        name = f"{connection.layer}.weight"
        if name in owners and name != connection.parameter:
            layer = model.get_submodule(connection.layer)
            layer.weight = nn.Parameter(owners[name].detach().clone())
            own[index] = layer.weight
        else:
            own[index] = owners[connection.parameter]
    return model, own


def without_columns(model: nn.Module, wiring: Wiring, units: np.ndarray) -> nn.Module:
    model, weight_by_connection = untied(model, wiring)
    with torch.no_grad():
        for index, weight in weight_by_connection.items():
            connection = wiring.connections[index]
            reads = np.isin(np.broadcast_to(connection.sources, weight.shape), units)
            weight[torch.from_numpy(reads & (np.broadcast_to(connection.targets, weight.shape) >= 0))] = 0
    return model


def without_rows(model: nn.Module, wiring: Wiring, units: np.ndarray) -> nn.Module:
    """The units' own weights and biases are zero, so that they are never anything else."""
    model, weight_by_connection = untied(model, wiring)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for index, weight in weight_by_connection.items():
            writes = np.isin(np.broadcast_to(wiring.connections[index].targets, weight.shape), units)
            weight[torch.from_numpy(writes)] = 0
        for parameter in wiring.unit_parameters:
            tensor = parameters[parameter.parameter]
            tensor[torch.from_numpy(np.isin(np.broadcast_to(parameter.units, tensor.shape), units))] = 0
    return model


def assert_same(ours: list[Tensor], wanted: list[Tensor]) -> None:
    for mine, theirs in zip(ours, wanted, strict=True):
        assert (mine - theirs).abs().max() <= TOLERANCE * max(1.0, float(theirs.abs().max()))


@pytest.mark.parametrize("name", NAMES)
def test_zero_is_the_same_as_the_readers_columns_set_to_zero(name: str) -> None:
    model, inputs, wiring = example(name)
    units = units_of(wiring, "weights")
    with silenced(model, wiring, units):
        ours = outputs_of(model, inputs)
    assert_same(ours, outputs_of(without_columns(model, wiring, units), inputs))
    intact = outputs_of(model, inputs)
    assert any((mine != before).any() for mine, before in zip(ours, intact, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_the_lists_name_every_family_with_units_that_no_weight_reads(name: str) -> None:
    unread = unread_by_weights(example(name)[2])
    assert (len(unread["queries and keys"]) > 0) == (name in WITH_QUERIES_AND_KEYS)
    assert (len(unread["outputs"]) > 0) == (name in WITH_OUTPUTS)


@pytest.mark.parametrize(
    ("name", "what"),
    [(name, "queries and keys") for name in WITH_QUERIES_AND_KEYS] + [(name, "outputs") for name in WITH_OUTPUTS],
)
def test_units_that_no_weight_reads_are_silent_where_they_are_read(name: str, what: str) -> None:
    model, inputs, wiring = example(name)
    units = units_of(wiring, what)
    with silenced(model, wiring, units):
        ours = outputs_of(model, inputs)
    assert_same(ours, outputs_of(without_rows(model, wiring, units), inputs))


@pytest.mark.parametrize("name", ["mlp", "lenet", "vgg", "densenet", "shufflenet", "mobilenet", "inception"])
def test_chains_are_equal_bit_for_bit(name: str) -> None:
    model, inputs, wiring = example(name)
    units = units_of(wiring, "weights")
    with silenced(model, wiring, units):
        ours = outputs_of(model, inputs)
    for mine, theirs in zip(ours, outputs_of(without_columns(model, wiring, units), inputs), strict=True):
        assert torch.equal(mine, theirs)


def test_a_silenced_input_is_an_input_of_zero_at_every_time_step() -> None:
    model, inputs, wiring = example("gru_cell")
    with silenced(model, wiring, wiring.groups[0].unit_ids[[0, 3]]):
        ours = outputs_of(model, inputs)
    zeroed = inputs.clone()
    zeroed[..., [0, 3]] = 0
    assert_same(ours, outputs_of(model, zeroed))


class SharedReader(nn.Module):
    """One weight that reads what two others write, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.shared = nn.Linear(3, 4), nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.shared(self.first(x)), self.shared(self.second(x)).exp()], 1)


def test_a_weight_that_reads_two_layers_is_silenced_for_one_of_them() -> None:
    torch.manual_seed(0)
    model, inputs = SharedReader(), torch.randn(3, 3)
    ids = np.arange(3 + 4 + 4 + 5)
    groups = [
        UnitGroup(name, kind, part, depth)
        for name, kind, part, depth in zip(
            ["input", "first", "second", "shared"],
            ["input", "hidden", "hidden", "output"],
            np.split(ids, [3, 7, 11]),
            [0, 1, 1, 2],
            strict=True,
        )
    ]
    read, first, second, out = (group.unit_ids for group in groups)
    connections = [
        Connection(f"{layer}.weight", model.get_submodule(layer).weight, sources[None], targets[:, None], layer)
        for layer, sources, targets in (
            ("first", read, first),
            ("second", read, second),
            ("shared", first, out),
            ("shared", second, out),
        )
    ]
    wiring = Wiring(tuple(groups), tuple(connections))
    (intact,) = outputs_of(model, inputs)
    for units, changed, same in ((first[:2], slice(0, 5), slice(5, 10)), (second[:2], slice(5, 10), slice(0, 5))):
        layer = ("first", "second")[int(units[0] == second[0])]
        with silenced(model, wiring, units):
            (ours,) = outputs_of(model, inputs)
        without = copy.deepcopy(model)
        for parameter in without.get_submodule(layer).parameters():
            parameter.data[:2] = 0
        torch.testing.assert_close(ours[:, changed], outputs_of(without, inputs)[0][:, changed])
        assert torch.equal(ours[:, same], intact[:, same])


def test_a_weight_that_is_used_both_ways_is_silenced_in_the_direction_that_reads() -> None:
    model, inputs, wiring = example("tied_autoencoder")
    hidden = next(group for group in wiring.groups if group.kind == "hidden")
    with silenced(model, wiring, hidden.unit_ids):
        (ours,) = outputs_of(model, inputs)
    assert float((ours - ours[0]).abs().max()) == 0  # what is left does not depend on the example
    assert float((outputs_of(model, inputs)[0] - ours).abs().max()) > 0


def test_a_weight_that_is_computed_from_a_parameter_is_found() -> None:
    model, inputs, wiring = example("weight_normed")
    with silenced(model, wiring, wiring.groups[0].unit_ids):
        ours = outputs_of(model, inputs)
    assert_same(ours, outputs_of(model, torch.zeros_like(inputs)))


# -- mean and resample ---------------------------------------------------------------------------------------------


@contextmanager
def replaced_by_hooks(model: nn.Module, wiring: Wiring, units: np.ndarray, reference: list[Tensor]) -> Iterator[None]:
    """Slow definition: hooks on linear layers and convolutions, and the means of their own inputs."""
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    layers = {c.layer: c for c in wiring.connections}

    def columns(inputs: Tensor) -> Tensor:  # (rows, columns): a column is what one column of the weight reads
        return inputs.movedim(1, -1).reshape(-1, inputs.shape[1])

    def add(name: str, inputs: Tensor) -> None:
        sums[name] = sums.get(name, 0) + columns(inputs).double().sum(0)
        counts[name] = counts.get(name, 0) + len(columns(inputs))

    def replace(name: str, inputs: Tensor) -> tuple[Tensor]:
        sources = np.broadcast_to(layers[name].sources, layers[name].weight.shape).reshape(len(layers[name].weight), -1)
        per_column = layers[name].weight[0, 0].numel()
        is_silenced = torch.from_numpy(np.isin(sources[0, ::per_column], units))
        values = inputs.clone()
        mean = (sums[name] / counts[name]).float()
        values.movedim(1, -1)[..., is_silenced] = mean[is_silenced]
        return (values,)

    with ExitStack() as stack:
        for name in layers:
            hook = model.get_submodule(name).register_forward_pre_hook(lambda _, args, name=name: add(name, args[0]))
            stack.callback(hook.remove)
        with torch.no_grad():
            for inputs in reference:
                model(inputs)
    with ExitStack() as stack:
        for name in layers:
            hook = model.get_submodule(name).register_forward_pre_hook(
                lambda _, args, name=name: replace(name, args[0])
            )
            stack.callback(hook.remove)
        yield


@pytest.mark.parametrize("name", ["mlp", "norm_mlp", "lenet", "vgg", "densenet", "inception", "resnet"])
def test_mean_is_the_mean_of_what_each_column_reads_over_examples_and_positions(name: str) -> None:
    model, inputs, wiring = example(name)
    units = units_of(wiring, "weights")
    reference = [inputs + 0.3, inputs[:1] * 2]  # batches of unequal size
    with silenced(model, wiring, units, value="mean", reference=reference):
        ours = outputs_of(model, inputs)
    with replaced_by_hooks(model, wiring, units, reference):
        wanted = outputs_of(model, inputs)
    assert_same(ours, wanted)


@pytest.mark.parametrize("name", ["mlp", "lenet", "transformer_pre_norm", "lstm", "gpt2", "head_weights"])
def test_all_that_is_read_replaced_by_one_examples_values_gives_its_output(name: str) -> None:
    model, inputs, wiring = example(name)
    one = {k: v[:1] for k, v in inputs.items()} if isinstance(inputs, dict) else inputs[:1]
    hidden = np.concatenate([g.unit_ids for g in wiring.groups if g.kind != "output"])
    with silenced(model, wiring, hidden, value="resample", reference=[one if isinstance(one, dict) else (one, 0)]):
        ours = outputs_of(model, inputs)[0]
    wanted = outputs_of(model, one)[0].expand(ours.shape)
    torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-5)


def test_resample_of_a_single_reference_example_is_its_mean_in_a_network_without_positions() -> None:
    model, inputs, wiring = example("norm_mlp")
    units, reference = units_of(wiring, "weights"), [inputs[:1] + 1]
    with silenced(model, wiring, units, value="mean", reference=reference):
        mean = outputs_of(model, inputs)
    with silenced(model, wiring, units, value="resample", reference=reference):
        assert_same(outputs_of(model, inputs), mean)


def test_resampled_units_all_come_from_one_other_example_drawn_anew_for_every_example_and_call() -> None:
    model = nn.Sequential(nn.Linear(6, 3, bias=False))
    inputs = torch.arange(24.0).reshape(4, 6)
    wiring = read_wiring(model, inputs)
    reference = [torch.randn(5, 6), torch.randn(3, 6)]
    with silenced(model, wiring, range(6), value="resample", reference=reference, rng=3):
        first, second = model(inputs.repeat(10, 1)), model(inputs.repeat(10, 1))
    donors = model(torch.cat(reference)).detach()
    for outputs in (first, second):
        distances = torch.cdist(outputs, donors)
        assert float(distances.min(1).values.max()) < 1e-3
        assert len(distances.argmin(1).unique()) == 8
    assert not torch.equal(first, second)
    with silenced(model, wiring, range(6), value="resample", reference=reference, rng=3):
        assert torch.equal(model(inputs.repeat(10, 1)), first)


def test_mean_of_an_output_unit_is_its_mean_output() -> None:
    model, inputs, wiring = example("mlp")
    unit = wiring.groups[-1].unit_ids[1]
    with silenced(model, wiring, [unit], value="mean", reference=[inputs]):
        (ours,) = outputs_of(model, inputs)
    (intact,) = outputs_of(model, inputs)
    torch.testing.assert_close(ours[:, 1], intact[:, 1].mean().expand(len(inputs)))
    assert torch.equal(ours[:, 0], intact[:, 0])


# -- how it is used ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mlp", "resnet", "lstm", "transformer_pre_norm", "gpt2"])
@pytest.mark.parametrize("value", ["zero", "mean", "resample"])
def test_the_model_is_untouched_afterwards(name: str, value: Any) -> None:
    model, inputs, wiring = example(name)
    batch = inputs if isinstance(inputs, dict) else (inputs, 0)
    before = fingerprint(model)
    with silenced(model, wiring, units_of(wiring, "weights"), value=value, reference=[batch]):
        call(model, inputs)
    assert differences(before, fingerprint(model)) == []


def test_the_model_is_untouched_after_an_exception() -> None:
    model, inputs, wiring = example("lstm")
    before = fingerprint(model)
    with pytest.raises(KeyboardInterrupt), silenced(model, wiring, [3]):
        raise KeyboardInterrupt
    with pytest.raises(RuntimeError), silenced(model, wiring, [3]):
        model(inputs.double())
    assert differences(before, fingerprint(model)) == []


def test_lesions_can_be_nested() -> None:
    model, inputs, wiring = example("mlp")
    with silenced(model, wiring, [7, 9, 16]):
        both = outputs_of(model, inputs)
    with silenced(model, wiring, [7]):
        only_first = outputs_of(model, inputs)
        with silenced(model, wiring, [9, 16]):
            assert_same(outputs_of(model, inputs), both)
        assert_same(outputs_of(model, inputs), only_first)


def test_no_units_is_no_lesion() -> None:
    model, inputs, wiring = example("mlp")
    with silenced(model, wiring, []):
        ours = outputs_of(model, inputs)
    assert torch.equal(ours[0], outputs_of(model, inputs)[0])


def test_a_lesion_under_a_mask_and_a_mask_under_a_lesion_are_the_same() -> None:
    model, inputs, wiring = example("mlp")
    generator = torch.Generator().manual_seed(0)
    kept = {name: torch.rand(p.shape, generator=generator) < 0.7 for name, p in model.named_parameters() if p.ndim > 1}
    masked = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in masked.named_parameters():
            parameter *= kept.get(name, 1)
    units = units_of(wiring, "weights")
    wanted = outputs_of(without_columns(masked, wiring, units), inputs)
    with applied(model, Mask(kept)), silenced(model, wiring, units):
        assert_same(outputs_of(model, inputs), wanted)
    with silenced(model, wiring, units), applied(model, Mask(kept)):
        assert_same(outputs_of(model, inputs), wanted)


def test_functional_call_and_inference_mode_are_silenced_too() -> None:
    model, inputs, wiring = example("mlp")
    units = units_of(wiring, "weights")
    wanted = outputs_of(without_columns(model, wiring, units), inputs)
    others = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    with silenced(model, wiring, units):
        assert_same([torch.func.functional_call(model, others, (inputs,))], wanted)
        with torch.inference_mode():
            assert_same([model(inputs)], wanted)


def test_gradients_are_off_inside() -> None:
    model, inputs, wiring = example("mlp")
    with silenced(model, wiring, [7]):
        assert not model(inputs).requires_grad
    assert model(inputs).requires_grad


# -- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", [[-1], [10**6], np.array([0.5]), np.array([True, False])])
def test_a_unit_that_does_not_exist_is_an_error(units: Any) -> None:
    model, _, wiring = example("mlp")
    with pytest.raises(LesionError, match="unit"), silenced(model, wiring, units):
        pass


@pytest.mark.parametrize("reference", [None, []])
@pytest.mark.parametrize("value", ["mean", "resample"])
def test_a_mean_of_nothing_is_an_error(value: Any, reference: Any) -> None:
    model, _, wiring = example("mlp")
    with pytest.raises(LesionError, match="reference"), silenced(model, wiring, [7], value=value, reference=reference):
        pass


def test_an_unknown_value_is_an_error() -> None:
    model, _, wiring = example("mlp")
    with pytest.raises(LesionError, match="'zero', 'mean' or 'resample'"), silenced(model, wiring, [7], value="one"):  # type: ignore[arg-type]
        pass


def test_the_wiring_of_another_model_is_an_error() -> None:
    model, inputs, _ = example("mlp")
    _, _, other = example("lenet")
    with pytest.raises(LesionError, match="this very model"), silenced(model, other, [3]):
        model(inputs)
    _, _, bigger = example("norm_mlp")
    with pytest.raises(LesionError, match="this very model"), silenced(model, bigger, [8]):
        model(inputs)


def test_reference_examples_that_do_not_fit_are_an_error() -> None:
    model, inputs, wiring = example("mlp")
    with (
        pytest.raises(LesionError, match="reference examples"),
        silenced(model, wiring, [7], value="mean", reference=[inputs[:, :2]]),
    ):
        pass
    with pytest.raises(TaskError, match="batch"), silenced(model, wiring, [7], value="mean", reference=["text"]):
        pass
    sequence = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 3))
    tokens = torch.zeros(2, 6, dtype=torch.int64)
    wiring = read_wiring(sequence, tokens)
    with (
        pytest.raises(LesionError, match="same shapes"),
        silenced(sequence, wiring, [1], value="resample", reference=[tokens[:, :3]]),
    ):
        sequence(tokens)
