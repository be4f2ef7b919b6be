"""Weight graphs of networks that somebody drew to break them."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from modscope.errors import GraphError
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.graph.weights import chain_graph, weight_graph
from modscope.partition.quality import n_cut
from modscope.partition.spectral import Spectral
from modscope.wiring.trace import read_wiring

SEEDS = st.integers(0, 10_000)
LAYERS = st.lists(st.integers(1, 7), min_size=3, max_size=5)


def perceptron(widths: list[int], seed: int, share_of_zeros: float = 0.0) -> nn.Sequential:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= torch.rand(parameter.shape) >= share_of_zeros
    return model


def small_cnn(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4),
        nn.ReLU(), nn.Flatten(), nn.Linear(16, 2),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for norm in (model[1], model[4]):
            norm.weight.uniform_(-2, 2)
            norm.running_var.uniform_(0.1, 2)
    return model


def graph_of(model: nn.Module, example: Tensor, **options: object) -> UnitGraph:
    return weight_graph(read_wiring(model, example), **options)  # type: ignore[arg-type]


@given(seed=SEEDS, widths=LAYERS, zeros=st.sampled_from([0.0, 0.3, 0.8]))
@settings(max_examples=10, deadline=None)
def test_no_relu_rescaling_changes_the_rescaled_graph(seed, widths, zeros):
    model, x = perceptron(widths, seed, zeros), torch.randn(2, widths[0])
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        for i in range(0, len(scaled) - 2, 2):
            factors = torch.exp(3 * torch.randn(scaled[i].out_features))
            scaled[i].weight *= factors[:, None]
            scaled[i].bias *= factors
            scaled[i + 2].weight /= factors
    torch.testing.assert_close(scaled(x), model(x), rtol=1e-3, atol=1e-4)
    for kept in (True, False):
        before, after = (
            graph_of(each, x, rescale=True, inputs=kept, outputs=kept).adjacency().toarray() for each in (model, scaled)
        )
        np.testing.assert_allclose(after, before, rtol=2e-3, atol=1e-7)


@given(seed=SEEDS, widths=LAYERS, zeros=st.sampled_from([0.0, 0.5]))
@settings(max_examples=15, deadline=None)
def test_leaving_out_inputs_and_outputs_leaves_exactly_the_edges_between_hidden_units(seed, widths, zeros):
    wiring = read_wiring(perceptron(widths, seed, zeros), torch.randn(2, widths[0]))
    whole, inner = weight_graph(wiring), weight_graph(wiring, inputs=False, outputs=False)
    kept = np.isin(wiring.group_of, [i for i, group in enumerate(wiring.groups) if group.kind == "hidden"])
    expected = whole.adjacency().toarray() * np.outer(kept, kept)
    np.testing.assert_array_equal(inner.adjacency().toarray(), expected)


@given(seed=SEEDS)
@settings(max_examples=8, deadline=None)
def test_folding_norms_is_the_graph_of_the_network_with_its_norms_folded(seed):
    model, x = small_cnn(seed), torch.randn(2, 2, 4, 4)
    folded = copy.deepcopy(model)
    with torch.no_grad():
        for convolution, norm in ((folded[0], folded[1]), (folded[3], folded[4])):
            factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            convolution.weight *= factor[:, None, None, None]
            norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))  # scales by one from now on
            norm.bias.copy_(norm.bias + norm.running_mean * (1 - factor))
    # a norm behind a layer is counted where its values are read next: the same network, each unit's scale moved on
    one, other = (graph_of(each, x, rescale=True).adjacency().toarray() for each in (model, folded))
    np.testing.assert_allclose(other, one, rtol=2e-3, atol=1e-6)


@given(seed=SEEDS, size=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_official_norms_of_kernels_are_numpys_matrix_norms(seed, size):
    kernels = np.random.default_rng(seed).standard_normal((3, 2, size, size)).astype(np.float32)
    for name, order in (("official_l1", 1), ("official_l2", 2)):
        sizes = chain_graph([kernels], edge_norm=name).blocks[0].sizes
        expected = [[np.linalg.norm(np.abs(kernel), ord=order) for kernel in row] for row in kernels]
        np.testing.assert_allclose(sizes, expected, rtol=1e-5)


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_norms_are_ordered_as_theory_says(seed):
    """Largest singular value <= root of the sum of squares <= sum; largest column sum <= sum."""
    kernels = np.random.default_rng(seed).standard_normal((3, 2, 3, 3))
    l1, l2, induced_1, induced_2 = (
        chain_graph([kernels], edge_norm=norm).blocks[0].sizes for norm in ("l1", "l2", "official_l1", "official_l2")
    )
    assert (induced_2 <= l2 * 1.000001).all()
    assert (l2 <= l1).all()
    assert (induced_1 <= l1).all()


@pytest.mark.parametrize("norm", ["l1", "l2", "official_l1", "official_l2"])
def test_signs_of_weights_do_not_matter(norm):
    model, x = small_cnn(0), torch.randn(1, 2, 4, 4)
    before = graph_of(model, x, edge_norm=norm).adjacency().toarray()
    with torch.no_grad():
        for parameter in (model[0].weight, model[3].weight, model[7].weight):
            parameter *= torch.where(torch.rand(parameter.shape) < 0.5, -1.0, 1.0)
    np.testing.assert_allclose(graph_of(model, x, edge_norm=norm).adjacency().toarray(), before, rtol=1e-5)


def test_a_layer_of_zeros_leaves_two_networks_that_are_clustered_apart():
    model, x = perceptron([4, 5, 6, 3], 0), torch.randn(2, 4)
    with torch.no_grad():
        model[2].weight.zero_()
    graph = graph_of(model, x)
    assert len(graph.isolated) == 0
    assert graph.connectivity.n_components == 2
    partition = Spectral(2)(graph, rng=0)
    assert n_cut(graph, partition) == pytest.approx(0, abs=1e-9)


def test_a_network_of_zeros_has_a_graph_without_edges():
    model, x = perceptron([4, 5, 3], 0, share_of_zeros=1.1), torch.randn(2, 4)
    for options in ({}, {"rescale": True}, {"edge_norm": "l2"}):
        graph = graph_of(model, x, **options)
        assert graph.n_edges == 0
        np.testing.assert_array_equal(graph.isolated, np.arange(12))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_norm_that_is_no_number_is_refused_by_the_weight_it_is_folded_into(bad):
    model, x = small_cnn(0), torch.randn(1, 2, 4, 4)
    wiring = read_wiring(model, x)
    weight_graph(wiring)
    with torch.no_grad():
        model[1].weight[0] = bad
    with pytest.raises(GraphError, match=r"weights of '.*' \(or the norm folded into them\) hold NaN or infinite"):
        graph_of(model, x)
    assert np.isfinite(graph_of(model, x, fold_norms=False).degrees).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.5])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_an_edge_that_is_negative_or_no_number_is_refused_by_name(bad, is_sparse):
    sizes = np.array([[1.0, bad], [0.5, 2.0]])
    with pytest.raises(GraphError, match=r"'broken'.*(>= 0, got -0.5|NaN or infinite)"):
        Block(np.arange(2), np.arange(2, 4), sp.csr_array(sizes) if is_sparse else sizes, "broken")


@given(seed=SEEDS, power=st.sampled_from([-18, -6, 6, 15]))
@settings(max_examples=12, deadline=None)
def test_the_unit_of_measure_of_the_weights_does_not_change_clusters_or_n_cut(seed, power):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal((6, 5)), rng.standard_normal((4, 6))]
    one, other = chain_graph(weights), chain_graph([weight * 10.0**power for weight in weights])
    labels = Spectral(3)(one, rng=0).labels
    np.testing.assert_array_equal(Spectral(3)(other, rng=0).labels, labels)
    assert n_cut(other, labels) == pytest.approx(n_cut(one, labels), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_make_the_same_graph(dtype):
    model, x = perceptron([4, 5, 3], 0), torch.randn(2, 4)
    exact = graph_of(model, x).adjacency().toarray()
    found = graph_of(model.to(dtype), x.to(dtype)).adjacency().toarray()
    np.testing.assert_allclose(found, exact, rtol=0.01, atol=1e-6)


def test_a_model_without_numbers_is_refused():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    wiring = read_wiring(model, torch.empty(2, 4, device="meta"))
    with pytest.raises(GraphError, match=r"'0\.weight'.*meta"):
        weight_graph(wiring)
