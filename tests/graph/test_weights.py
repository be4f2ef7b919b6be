from collections import defaultdict

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from modscope.errors import GraphError
from modscope.graph.unit_graph import UnitGraph
from modscope.graph.weights import chain_graph, weight_graph
from modscope.partition.quality import n_cut
from modscope.wiring.trace import read_wiring
from modscope.wiring.wiring import Connection, UnitGroup, Wiring
from planted.graphs import gaussian_mlp


def wiring_of(widths: list[int], *connections: Connection) -> Wiring:
    starts = np.cumsum([0, *widths])
    kinds = ["input", *["hidden"] * (len(widths) - 2), "output"]
    groups = tuple(
        UnitGroup(f"g{i}", kind, np.arange(starts[i], starts[i + 1]), i)  # type: ignore[arg-type]
        for i, kind in enumerate(kinds)
    )
    return Wiring(groups, connections)


def slow_adjacency(wiring: Wiring, *, squared: bool = False, folded: bool = True) -> np.ndarray:
    """Entry by entry: |weight x scales| of all that join two units, added up (or the root of the sum of squares)."""
    adjacency = np.zeros((wiring.n_units, wiring.n_units))
    for connection in wiring.connections:
        weight = connection.weight.detach().numpy().astype(np.float64)
        scales = [np.broadcast_to(1.0 if s is None or not folded else s, weight.shape)
                  for s in (connection.source_scale, connection.target_scale)]  # fmt: skip
        sources, targets = (np.broadcast_to(ids, weight.shape) for ids in (connection.sources, connection.targets))
        joined: dict[tuple[int, int], float] = defaultdict(float)
        for at in np.ndindex(weight.shape):
            size = abs(weight[at] * scales[0][at] * scales[1][at])
            if sources[at] >= 0 and targets[at] >= 0 and sources[at] != targets[at]:
                joined[targets[at], sources[at]] += size**2 if squared else size
        for (target, source), total in joined.items():
            value = np.sqrt(total) if squared else total
            adjacency[target, source] += value
            adjacency[source, target] += value
    return adjacency


def linear(weight: Tensor, sources: np.ndarray, targets: np.ndarray, **options: object) -> Connection:
    return Connection("layer.weight", weight, sources[None, :], targets[:, None], "layer", **options)  # type: ignore[arg-type]


def convolution(weight: Tensor, sources: np.ndarray, targets: np.ndarray) -> Connection:
    shape = (-1, 1, 1, 1)
    ids = sources.reshape(1, -1, 1, 1) if sources.ndim == 1 else sources[:, :, None, None]
    return Connection("conv.weight", weight, ids, targets.reshape(shape), "conv")


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


WIRINGS = {
    "linear": wiring_of([4, 3], linear(normal(3, 4), np.arange(4), np.arange(4, 7))),
    "entries of no unit": wiring_of([4, 3], linear(normal(3, 4), np.array([0, -1, 2, 3]), np.array([4, 6, -1]))),
    "flattened image": wiring_of([2, 3], linear(normal(3, 8), np.repeat(np.arange(2), 4), np.arange(2, 5))),
    "channels last": wiring_of([2, 3], linear(normal(3, 8), np.tile(np.arange(2), 4), np.arange(2, 5))),
    "packed gates": wiring_of([4, 3], linear(normal(12, 4), np.arange(4), np.tile(np.arange(4, 7), 4))),
    "recurrent": wiring_of([1, 3, 1], linear(normal(3, 3), np.arange(1, 4), np.arange(1, 4))),
    "one output": wiring_of([4, 1], linear(normal(1, 4), np.arange(4), np.array([4]))),
    "convolution": wiring_of([2, 3], convolution(normal(3, 2, 3, 3), np.arange(2), np.arange(2, 5))),
    "one channel": wiring_of([1, 3], convolution(normal(3, 1, 3, 3), np.arange(1), np.arange(1, 4))),
    "grouped": wiring_of([4, 4], convolution(normal(4, 2, 3, 3), np.array([[0, 1]] * 2 + [[2, 3]] * 2),
                                             np.arange(4, 8))),
    "depthwise": wiring_of([4, 4], convolution(normal(4, 1, 3, 3), np.arange(4)[:, None], np.arange(4, 8))),
    "transposed storage": wiring_of(
        [4, 3], Connection("c1d.weight", normal(4, 3), np.arange(4)[:, None], np.arange(4, 7)[None, :], "c1d")
    ),
    "heads": wiring_of([4, 6], Connection("heads.weight", normal(2, 3, 4), np.arange(4).reshape(1, 1, 4),
                                          np.arange(4, 10).reshape(2, 3, 1), "heads")),
    "folded norms": wiring_of([4, 3], linear(normal(3, 4), np.arange(4), np.arange(4, 7),
                                             source_scale=np.array([[-1.0, 2, 3, 0]]),
                                             target_scale=np.array([[2.0], [-3], [1]]))),
    "two connections": wiring_of([4, 3], linear(normal(3, 4), np.arange(4), np.arange(4, 7)),
                                 linear(normal(4, 3), np.arange(4, 7), np.arange(4))),
}  # fmt: skip


@pytest.mark.parametrize("name", WIRINGS)
def test_an_edge_is_the_sum_of_all_absolute_weights_between_two_units(name):
    wiring = WIRINGS[name]
    np.testing.assert_allclose(weight_graph(wiring).adjacency().toarray(), slow_adjacency(wiring), rtol=1e-5)


@pytest.mark.parametrize("name", WIRINGS)
def test_an_l2_edge_is_the_root_of_the_sum_of_squares(name):
    wiring = WIRINGS[name]
    found = weight_graph(wiring, edge_norm="l2").adjacency().toarray()
    np.testing.assert_allclose(found, slow_adjacency(wiring, squared=True), rtol=1e-5)


def test_norms_are_folded_only_when_asked():
    wiring = WIRINGS["folded norms"]
    found = weight_graph(wiring, fold_norms=False).adjacency().toarray()
    np.testing.assert_allclose(found, slow_adjacency(wiring, folded=False), rtol=1e-5)


@pytest.mark.parametrize(("edge_norm", "order"), [("official_l1", 1), ("official_l2", 2)])
@pytest.mark.parametrize("name", ["convolution", "one channel", "grouped", "depthwise"])
def test_official_edges_are_induced_norms_of_each_absolute_kernel(name, edge_norm, order):
    wiring = WIRINGS[name]
    connection = wiring.connections[0]
    expected = np.zeros((wiring.n_units, wiring.n_units))
    sources = np.broadcast_to(connection.sources, connection.weight.shape)[:, :, 0, 0]
    for (i, j), source in np.ndenumerate(sources):
        target = connection.targets[i, 0, 0, 0]
        size = np.linalg.norm(connection.weight[i, j].abs().numpy(), ord=order)
        expected[source, target] = expected[target, source] = size
    found = weight_graph(wiring, edge_norm=edge_norm).adjacency().toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_blocks_are_float32_and_carry_the_name_of_their_parameter():
    block = weight_graph(WIRINGS["linear"]).blocks[0]
    assert block.sizes.dtype == np.float32
    assert block.name == "layer.weight"


def test_the_models_own_weights_stay_as_they_are():
    wiring = WIRINGS["linear"]
    before = wiring.connections[0].weight.clone()
    weight_graph(wiring).blocks[0].sizes[:] = 0
    assert torch.equal(wiring.connections[0].weight, before)


def three_layers() -> tuple[nn.Sequential, Wiring]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    return model, read_wiring(model, torch.randn(2, 6))


def test_the_weight_graph_of_a_chain_is_the_chain_graph_of_its_weights():
    model, wiring = three_layers()
    weights = [layer.weight.detach().numpy() for layer in model if isinstance(layer, nn.Linear)]
    np.testing.assert_allclose(
        weight_graph(wiring).adjacency().toarray(), chain_graph(weights).adjacency().toarray(), rtol=1e-6
    )


def test_inputs_and_outputs_can_be_left_out():
    _, wiring = three_layers()
    graph = weight_graph(wiring, inputs=False, outputs=False)
    inner = [group for group in wiring.groups if group.kind == "hidden"]
    np.testing.assert_array_equal(np.flatnonzero(graph.components >= 0), np.concatenate([g.unit_ids for g in inner]))
    assert graph.n_units == wiring.n_units
    assert graph.n_edges == 20


def test_query_key_products_are_no_edges():
    wiring = WIRINGS["linear"]
    attention = Connection("q", normal(3, 3), np.arange(4, 7)[None, :], np.arange(4, 7)[:, None], "q", "query_key")
    both = Wiring(wiring.groups, (*wiring.connections, attention))
    assert [block.name for block in weight_graph(both).blocks] == ["layer.weight"]


def rescaled(model: nn.Sequential, factors: Tensor) -> nn.Sequential:
    """The same function: a hidden layer's incoming weights times c, its outgoing ones divided by c."""
    with torch.no_grad():
        model[0].weight *= factors[:, None]
        model[0].bias *= factors
        model[2].weight /= factors
    return model


def test_scaling_a_units_inputs_by_c_and_outputs_by_1_over_c_changes_no_edge_of_the_rescaled_graph():
    model, wiring = three_layers()
    labels = np.arange(wiring.n_units) % 3
    before = [weight_graph(wiring, rescale=flag) for flag in (False, True)]
    model = rescaled(model, torch.tensor([0.01, 100.0, 3.0, 1.0, 0.5]))
    after = [weight_graph(read_wiring(model, torch.randn(2, 6)), rescale=flag) for flag in (False, True)]
    assert abs(n_cut(after[0], labels) - n_cut(before[0], labels)) > 0.01
    assert n_cut(after[1], labels) == pytest.approx(n_cut(before[1], labels), rel=1e-5)
    np.testing.assert_allclose(after[1].adjacency().toarray(), before[1].adjacency().toarray(), rtol=1e-4)


def test_in_a_rescaled_graph_as_much_comes_into_a_hidden_unit_as_goes_out():
    _, wiring = three_layers()
    first, second, third = (block.sizes for block in weight_graph(wiring, rescale=True).blocks)
    np.testing.assert_allclose(first.sum(axis=1), second.sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(second.sum(axis=1), third.sum(axis=0), rtol=1e-5)


def test_units_that_pass_nothing_on_have_no_edges_once_rescaled():
    model, _ = three_layers()
    with torch.no_grad():
        model[0].weight[2] = 0  # nothing reaches it
        model[4].weight[:, 1] = 0  # nothing reads it
        model[2].weight[3] = 0
        model[2].weight[3, 2] = 1  # reached by a unit that nothing reaches
    wiring = read_wiring(model, torch.randn(2, 6))
    graph = weight_graph(wiring, rescale=True)
    np.testing.assert_array_equal(graph.isolated, [6 + 2, 11 + 1, 11 + 3])
    assert np.isfinite(graph.degrees).all()
    assert len(weight_graph(wiring).isolated) == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused_by_the_name_of_its_parameter(bad):
    model, _ = three_layers()
    with torch.no_grad():
        model[2].weight[1, 1] = bad
    with pytest.raises(GraphError, match=r"'2\.weight'.* NaN or infinite"):
        weight_graph(read_wiring(model, torch.randn(2, 6)))


def test_an_unknown_norm_is_refused():
    with pytest.raises(GraphError, match="edge_norm must be one of l1, l2"):
        weight_graph(WIRINGS["linear"], edge_norm="l3")  # type: ignore[arg-type]


def test_a_small_cnn_with_norms_is_read_and_measured():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(24, 2)
    ).eval()
    with torch.no_grad():
        model[1].weight.uniform_(0.5, 2)
        model[1].running_var.uniform_(0.5, 2)
    wiring = read_wiring(model, torch.randn(1, 3, 4, 4))
    graph = weight_graph(wiring)
    np.testing.assert_allclose(graph.adjacency().toarray(), slow_adjacency(wiring), rtol=1e-5)
    unfolded = weight_graph(wiring, fold_norms=False)
    assert not np.allclose(graph.degrees, unfolded.degrees)


def test_chain_graph_takes_sparse_matrices_and_kernels():
    first, second = (weight.T for weight in gaussian_mlp(widths=(5, 4, 3)))
    kernel = np.random.default_rng(0).standard_normal((2, 3, 3, 3))
    graph = chain_graph([sp.csr_matrix(first), second, kernel])
    assert isinstance(graph.blocks[0].sizes, sp.csr_array)
    np.testing.assert_allclose(graph.blocks[2].sizes, np.abs(kernel).sum(axis=(2, 3)))
    dense = chain_graph([first, second, np.abs(kernel).sum(axis=(2, 3))])
    np.testing.assert_allclose(graph.adjacency().toarray(), dense.adjacency().toarray())


def test_chain_graph_takes_tensors_and_lists():
    graph = chain_graph([nn.Parameter(torch.tensor([[1.0, -2.0]])), [[3]]])
    np.testing.assert_allclose(graph.degrees, [1, 2, 6, 3])


def test_chain_graph_keeps_one_group_per_layer_of_units():
    graph = chain_graph(weight.T for weight in gaussian_mlp(widths=(5, 4, 3)))
    assert graph.group_names == ("layer 0", "layer 1", "layer 2")
    np.testing.assert_array_equal(np.bincount(graph.group_of), [5, 4, 3])


def test_matrices_that_do_not_join_are_refused():
    with pytest.raises(GraphError, match=r"weights\[1\] reads 5 units, but weights\[0\] writes 4"):
        chain_graph([np.ones((4, 3)), np.ones((2, 5))])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([], "at least one layer"),
        ([np.ones(3)], r"weights\[0\] has shape \(3,\)"),
        ([np.array([["a"]])], r"weights\[0\] must hold real numbers"),
        ([np.array([[np.nan]])], r"'weights\[0\]' are NaN or infinite"),
    ],
)
def test_impossible_chains_are_refused(weights, message):
    with pytest.raises(GraphError, match=message):
        chain_graph(weights)


def test_a_graph_knows_its_groups():
    graph: UnitGraph = weight_graph(WIRINGS["linear"])
    assert graph.group_names == ("g0", "g1")
