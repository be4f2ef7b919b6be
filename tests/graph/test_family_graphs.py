"""Every model family has a sane weight graph, values for its units, an activation graph and clusters."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from families import FAMILIES
from modscope.graph.activations import activation_graph
from modscope.graph.places import Moment
from modscope.graph.unit_graph import UnitGraph
from modscope.graph.unit_values import UnitValues, unit_values
from modscope.graph.weights import weight_graph
from modscope.partition.quality import n_cut
from modscope.partition.spectral import Spectral
from modscope.wiring.trace import read_wiring
from modscope.wiring.wiring import Wiring

# mixtral: torch's grouped product asks for strides that this tiny model has not, on most numbers of tokens
NAMES = [name for name in FAMILIES if name != "mixtral"]
# t5 adds a learned number for each distance to what its heads look at: the same on every example
WITHOUT_VALUES = {"t5": ["relative_attention_bias"]}


@cache
def read(name: str) -> tuple[nn.Module, Wiring]:
    factory, example = FAMILIES[name]
    torch.manual_seed(0)
    model = factory().eval()
    return model, read_wiring(model, example)


def built(name: str, n_examples: int = 5) -> tuple[nn.Module, Wiring, Any]:
    example = FAMILIES[name][1]
    generator = torch.Generator().manual_seed(1)

    def drawn(tensor: Tensor) -> Tensor:
        shape = (n_examples, *tensor.shape[1:])
        if tensor.is_floating_point():
            return torch.randn(shape, generator=generator)
        return torch.randint(int(tensor.max()) + 1, shape, generator=generator)

    return *read(name), tree_map(drawn, example)


def part_of(inputs: Any, some: slice) -> Any:
    return tree_map(lambda tensor: tensor[some], inputs)


def values_on(
    model: nn.Module, wiring: Wiring, batches: list[Any], moment: Moment = "after", wanted: np.ndarray | None = None
) -> UnitValues:
    return unit_values(
        model, wiring, [(batch, None) for batch in batches], moment=moment, reduction="mean", max_examples=10**6,
        wanted=np.ones(wiring.n_units, dtype=bool) if wanted is None else wanted,
    )  # fmt: skip


@pytest.mark.parametrize("moment", ["after", "before"])
@pytest.mark.parametrize("name", NAMES)
def test_a_units_value_on_an_example_is_the_same_in_any_batch(name, moment):
    model, wiring, inputs = built(name)
    whole = values_on(model, wiring, [inputs], moment)
    parts = values_on(model, wiring, [part_of(inputs, slice(0, 3)), part_of(inputs, slice(3, 5))], moment)
    alone = values_on(model, wiring, [part_of(inputs, slice(i, i + 1)) for i in range(5)], moment)
    for other in (parts, alone):
        np.testing.assert_array_equal(other.units, whole.units)
        np.testing.assert_allclose(other.values, whole.values, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_unit_that_examples_can_change_has_a_value(name):
    model, wiring, inputs = built(name)
    found = values_on(model, wiring, [inputs])
    unread = np.setdiff1d(np.arange(wiring.n_units), found.units)
    names = {wiring.groups[group].name.rpartition(".")[2] for group in wiring.group_of[unread]}
    assert sorted(names) == WITHOUT_VALUES.get(name, [])


def read_by_modules(model: nn.Module, wiring: Wiring, inputs: Any) -> dict[int, np.ndarray]:
    """Slowly: the mean over the map of what the first linear or convolutional layer that reads a unit gets."""
    values: dict[int, np.ndarray] = {}
    by_layer = {connection.layer: connection for connection in wiring.connections if connection.kind == "weight"}

    def note(connection, module, arguments):
        operand = arguments[0].detach()
        channels = operand.flatten(2).mean(2) if isinstance(module, nn.modules.conv._ConvNd) else operand
        ids = connection.sources
        if isinstance(module, nn.modules.conv._ConvNd) and module.groups > 1:
            rows = module.out_channels // module.groups
            ids = ids[::rows]
        ids = ids.ravel()
        for unit in np.unique(ids[ids >= 0]):
            values.setdefault(int(unit), channels[:, ids == unit].mean(1).numpy())

    handles = [
        module.register_forward_pre_hook(lambda m, a, c=by_layer[layer]: note(c, m, a))
        for layer, module in model.named_modules()
        if layer in by_layer
    ]
    model(**inputs) if isinstance(inputs, dict) else model(inputs)
    for handle in handles:
        handle.remove()
    return values


PLAIN = [
    "mlp", "norm_mlp", "lenet", "vgg", "resnet", "bottleneck_resnet", "cifar_resnet", "densenet", "mobilenet_v1",
    "inception", "swiglu", "early_exit",
]  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_values_are_what_the_first_layer_that_reads_a_unit_gets(name):
    model, wiring, inputs = built(name)
    slow = read_by_modules(model, wiring, inputs)
    found = values_on(model, wiring, [inputs])
    assert len(slow) > wiring.n_units / 2
    for unit, expected in slow.items():
        values = found.values[:, np.searchsorted(found.units, unit)]
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-6, err_msg=f"unit {unit}")


def test_a_channel_that_gates_itself_is_read_behind_its_gate():
    model, wiring, inputs = built("mobilenet")
    project = model[3].project
    behind: list[Tensor] = []
    handle = project.register_forward_pre_hook(lambda _, arguments: behind.append(arguments[0].mean((2, 3))))
    found = values_on(model, wiring, [inputs])
    handle.remove()
    units = next(connection.sources.ravel() for connection in wiring.connections if connection.layer == "3.project")
    np.testing.assert_allclose(found.values[:, np.searchsorted(found.units, units)], behind[-1], rtol=1e-4, atol=1e-6)


def test_units_of_weights_without_a_module_have_the_values_of_the_formula():
    model, wiring, tokens = built("head_weights")
    x = model.embed(tokens)
    q, k, v = (torch.einsum("bsm,hmd->bshd", x, weight) for weight in (model.W_Q, model.W_K, model.W_V))
    pattern = (torch.einsum("bqhd,bkhd->bhqk", q, k) / 3**0.5).softmax(-1)
    heads = torch.einsum("bkhd,bhqk->bqhd", v, pattern)
    x = x + torch.einsum("bqhd,hdm->bqm", heads, model.W_O)
    expected = {"W_Q": q, "W_K": k, "W_V": heads, "W_in": torch.relu(x @ model.W_in), "stream": model.embed(tokens)}
    found = values_on(model, wiring, [tokens])
    for name, values in expected.items():
        units = next(group.unit_ids for group in wiring.groups if group.name == name)
        wanted = values.detach().flatten(2).flatten(0, 1)  # each token is an example
        got = found.values[:, np.searchsorted(found.units, units)]
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6, err_msg=name)
    before = values_on(model, wiring, [tokens], "before")
    hidden = next(group.unit_ids for group in wiring.groups if group.name == "W_in")
    got = before.values[:, np.searchsorted(before.units, hidden)]
    np.testing.assert_allclose(got, (x @ model.W_in).detach().flatten(0, 1), rtol=1e-4, atol=1e-6)


def test_an_inner_recurrent_layer_is_read_by_the_layer_above_it():
    model, wiring, tokens = built("gru")
    below = nn.GRU(6, 5, batch_first=True)
    below.load_state_dict({key: value for key, value in model.rnn.state_dict().items() if key.endswith("l0")})
    expected = below(model.embed(tokens))[0].mean(1).detach()  # over time: the head sees the last step alone
    units = next(group.unit_ids for group in wiring.groups if group.name == "rnn.l0")
    found = values_on(model, wiring, [tokens])
    np.testing.assert_allclose(found.values[:, np.searchsorted(found.units, units)], expected, rtol=1e-4, atol=1e-6)


def test_queries_and_keys_of_a_fused_projection_are_read_by_each_other():
    model, wiring, (query, memory) = built("multihead_attention")
    weight, bias = model.attention.in_proj_weight, model.attention.in_proj_bias
    found = values_on(model, wiring, [(query, memory)])
    for name, rows, seen in (
        ("attention.in_proj.1", slice(0, 8), query),
        ("attention.in_proj.2", slice(8, 16), memory),
    ):
        units = next(group.unit_ids for group in wiring.groups if group.name == name)
        expected = (seen @ weight[rows].T + bias[rows]).mean(1).detach()
        got = found.values[:, np.searchsorted(found.units, units[:8])]
        scale = float((got * expected).sum() / (expected**2).sum())  # queries are divided by a root of the head's size
        np.testing.assert_allclose(got, scale * expected, rtol=1e-3, atol=1e-5)


# -- graphs and clusters --------------------------------------------------------------------------------------------


def assert_sane(graph: UnitGraph, wiring: Wiring) -> None:
    adjacency = graph.adjacency()
    assert graph.n_units == wiring.n_units
    assert adjacency.data.min(initial=0) >= 0
    assert np.isfinite(adjacency.data).all()
    assert abs(adjacency - adjacency.T).max() == 0
    assert not adjacency.diagonal().any()


def assert_clusters(graph: UnitGraph) -> None:
    """Two clusters of all units with edges, that cut less than a random half does."""
    partition = Spectral(2)(graph, rng=0)
    np.testing.assert_array_equal(partition.labels >= 0, graph.degrees > 0)
    assert set(partition.labels[partition.labels >= 0]) == {0, 1}
    rng = np.random.default_rng(0)
    shuffled = []
    for _ in range(5):
        labels = partition.labels.copy()
        labels[labels >= 0] = rng.permutation(labels[labels >= 0])
        shuffled.append(n_cut(graph, labels))
    assert 0 <= n_cut(graph, partition) < min(shuffled)


@pytest.mark.parametrize("name", NAMES)
def test_a_family_has_a_weight_graph_with_clusters(name):
    _, wiring, _ = built(name)
    graph = weight_graph(wiring)
    assert_sane(graph, wiring)
    written = [c.targets[c.targets >= 0] for c in wiring.connections if c.kind == "weight" and (c.sources >= 0).any()]
    assert not np.isin(graph.isolated, np.concatenate(written)).any()  # random weights: none is zero
    assert_clusters(graph)


def slow_edges_that_pass_something_on(graph: UnitGraph, is_free: np.ndarray) -> set[tuple[int, int]]:
    """(source, target) of all edges, without those of free units that have none coming in, or none going out."""
    edges = {
        (int(block.sources[j]), int(block.targets[i]))
        for block in graph.blocks
        for i, j in np.argwhere(block.sizes > 0 if isinstance(block.sizes, np.ndarray) else block.sizes.toarray() > 0)
    }
    while True:
        sources, targets = {edge[0] for edge in edges}, {edge[1] for edge in edges}
        stuck = {unit for unit in sources ^ targets if is_free[unit]}
        if not stuck:
            return edges
        edges = {edge for edge in edges if not stuck & set(edge)}


@pytest.mark.parametrize("name", NAMES)
def test_rescaling_keeps_the_edges_that_pass_something_on(name):
    _, wiring, _ = built(name)
    graph, rescaled = weight_graph(wiring), weight_graph(wiring, rescale=True)
    is_free = np.isin(wiring.group_of, [i for i, g in enumerate(wiring.groups) if g.kind in ("hidden", "stream")])
    embedded = [c.targets[c.targets >= 0] for c in wiring.connections if not (c.sources >= 0).any()]
    is_free[np.concatenate([np.zeros(0, dtype=np.int64), *embedded])] = False
    assert_sane(rescaled, wiring)
    wanted = slow_edges_that_pass_something_on(graph, is_free)
    assert slow_edges_that_pass_something_on(rescaled, np.zeros_like(is_free)) == wanted
    assert wanted


@pytest.mark.filterwarnings("ignore:.*stay without edges")
@pytest.mark.parametrize("name", NAMES)
def test_a_family_has_an_activation_graph_with_clusters(name):
    model, wiring, inputs = built(name, n_examples=24)
    graph = activation_graph(model, wiring, [(inputs, None)], inputs=True, outputs=True)
    assert_sane(graph, wiring)
    assert graph.adjacency().max() <= 1
    read = values_on(model, wiring, [inputs])
    is_alive = np.ptp(read.values.numpy(), axis=0) > 0
    values, units = read.values.numpy()[:, is_alive].astype(np.float64), read.units[is_alive]
    expected = np.corrcoef(scipy.stats.rankdata(values, axis=0), rowvar=False) ** 2
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(graph.adjacency().toarray()[np.ix_(units, units)], expected, atol=1e-4)
    assert_clusters(graph)
