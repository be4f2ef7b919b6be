"""Does each null model of weights keep what it says, destroy the rest, and leave the subject alone?"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope.errors import StatisticsError
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.graph.weights import chain_graph
from modscope.nulls import (
    NULL_MODELS,
    keep_unit_scale,
    keep_unit_scale_by_size,
    keep_unit_scale_rewired,
    permute_within_columns,
    permute_within_rows,
    random_initialisation,
    redraw_nonzero_weights,
    shuffle_and_redraw_weights,
    shuffle_nonzero_weights,
    shuffle_weights,
    shuffle_within_signs,
)
from modscope.wiring.wiring import Connection, UnitGroup, Wiring

WEIGHT_NULLS = sorted(name for name, null in NULL_MODELS.items() if null.subject == "weights")
ON_GRAPHS = sorted(name for name in WEIGHT_NULLS if UnitGraph in NULL_MODELS[name].takes)


def sizes_of(graph: UnitGraph) -> list[np.ndarray]:
    return [b.sizes if isinstance(b.sizes, np.ndarray) else b.sizes.toarray() for b in graph.blocks]


def chain(density: float, *, seed: int = 0, widths: tuple[int, ...] = (9, 12, 7), sparse: bool = False) -> UnitGraph:
    rng = np.random.default_rng(seed)
    weights = [
        (rng.normal(size=(after, before)) * (rng.random((after, before)) < density)).astype(np.float32)
        for before, after in itertools.pairwise(widths)
    ]
    return chain_graph([sp.csr_array(w) for w in weights] if sparse else weights)


def convolutions() -> Wiring:
    """4 channels -> 6 (3 x 3 kernels) -> 8 in two groups -> a transposed linear layer with 5 outputs."""
    generator = torch.Generator().manual_seed(0)
    groups = (
        UnitGroup("input", "input", np.arange(4), 0),
        UnitGroup("first", "hidden", np.arange(4, 10), 1),
        UnitGroup("grouped", "hidden", np.arange(10, 18), 2),
        UnitGroup("output", "output", np.arange(18, 23), 3),
    )
    first = torch.randn(6, 4, 3, 3, generator=generator)
    first[2, 1] = 0.0  # one whole kernel is pruned
    grouped = torch.randn(8, 3, 3, 3, generator=generator)
    linear = torch.randn(8, 5, generator=generator)
    sources_of_grouped = np.repeat([[4, 5, 6], [7, 8, 9]], 4, axis=0).reshape(8, 3, 1, 1)
    return Wiring(
        groups,
        (
            Connection("first", first, np.arange(4).reshape(1, 4, 1, 1), np.arange(4, 10).reshape(6, 1, 1, 1), "first"),
            Connection("grouped", grouped, sources_of_grouped, np.arange(10, 18).reshape(8, 1, 1, 1), "grouped"),
            Connection("linear", linear, np.arange(10, 18).reshape(8, 1), np.arange(18, 23).reshape(1, 5), "linear"),
        ),
    )


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("density", [1.0, 0.4])
@pytest.mark.parametrize("name", ON_GRAPHS)
def test_every_null_gives_as_many_edges_between_the_same_layers_and_leaves_the_graph_alone(
    name: str, density: float, sparse: bool
) -> None:
    graph = chain(density, sparse=sparse)
    before = [sizes.copy() for sizes in sizes_of(graph)]
    drawn = NULL_MODELS[name](graph, 0)
    for old, new, untouched in zip(sizes_of(graph), sizes_of(drawn), before, strict=True):
        assert np.array_equal(old, untouched)
        assert (new > 0).sum() == (old > 0).sum()
        assert new.shape == old.shape
        assert new.dtype == old.dtype
        assert not np.array_equal(new, old)
    again, other = sizes_of(NULL_MODELS[name](graph, 0)), sizes_of(NULL_MODELS[name](graph, 1))
    assert all(np.array_equal(a, b) for a, b in zip(sizes_of(drawn), again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(sizes_of(drawn), other, strict=True))


@pytest.mark.parametrize("name", ON_GRAPHS)
def test_dense_and_sparse_blocks_of_the_same_sizes_are_drawn_alike(name: str) -> None:
    dense, sparse = (sizes_of(NULL_MODELS[name](chain(0.4, sparse=sparse), 5)) for sparse in (False, True))
    for one, other in zip(dense, sparse, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_shuffles_keep_the_values_of_each_layer_and_only_the_first_moves_zeros() -> None:
    graph = chain(0.5)
    for null, moves_zeros in ((shuffle_weights, True), (shuffle_nonzero_weights, False)):
        for old, new in zip(sizes_of(graph), sizes_of(null(graph, 0)), strict=True):
            assert np.array_equal(np.sort(old, axis=None), np.sort(new, axis=None))
            assert np.array_equal(old > 0, new > 0) != moves_zeros


def test_shuffle_weights_puts_every_weight_everywhere_equally_often() -> None:
    graph = chain_graph([np.array([[1.0, 2.0], [0.0, 3.0]], dtype=np.float32)])
    counts = np.zeros((4, 4))
    for index in range(4000):
        drawn = sizes_of(shuffle_weights(graph, index))[0].reshape(-1).astype(int)
        counts[np.arange(4), drawn] += 1
    assert np.abs(counts / 4000 - 0.25).max() < 0.035  # five standard errors


def test_density_estimates_draw_near_values_that_were_there() -> None:
    graph = chain(0.5)
    for null, moves_zeros in ((redraw_nonzero_weights, False), (shuffle_and_redraw_weights, True)):
        for old, new in zip(sizes_of(graph), sizes_of(null(graph, 0)), strict=True):
            distance = np.abs(new[new > 0][:, None] - old[old > 0][None]).min(axis=1)
            assert 0 < distance.max() < 0.06  # six bandwidths
            assert np.array_equal(old > 0, new > 0) != moves_zeros


def test_permutations_within_rows_and_columns_keep_their_sets_of_weights() -> None:
    graph = chain(0.5)
    for null, axis in ((permute_within_rows, 1), (permute_within_columns, 0)):
        for old, new in zip(sizes_of(graph), sizes_of(null(graph, 3)), strict=True):
            assert np.array_equal(np.sort(old, axis=axis), np.sort(new, axis=axis))
            assert not np.array_equal(old > 0, new > 0)


def test_shared_scales_are_kept_and_residuals_are_not() -> None:
    """Layers that are exactly a_i b_j have no residuals: every draw is the layer itself."""
    rng = np.random.default_rng(0)
    product = np.outer(rng.lognormal(size=12), rng.lognormal(size=9)).astype(np.float32)
    drawn = sizes_of(keep_unit_scale(chain_graph([product]), 0))[0]
    np.testing.assert_allclose(drawn, product, rtol=1e-3)
    shuffled = sizes_of(shuffle_weights(chain_graph([product]), 0))[0]
    assert np.abs(np.log(shuffled / product)).max() > 1


def test_keep_unit_scale_keeps_positions_and_the_scale_of_units_on_average() -> None:
    rng = np.random.default_rng(1)
    weights = np.abs(rng.normal(size=(40, 50))) * np.outer(rng.lognormal(size=40), rng.lognormal(size=50))
    weights[rng.random(weights.shape) < 0.3] = 0
    graph = chain_graph([weights.astype(np.float32)])
    draws = np.array([sizes_of(keep_unit_scale(graph, index))[0] for index in range(40)])
    assert all(np.array_equal(draw > 0, weights > 0) for draw in draws)
    for axis in (0, 1):
        ratio = np.log(draws.mean(axis=0).sum(axis=axis) / weights.sum(axis=axis))
        assert np.abs(ratio).mean() < 0.25  # the sums themselves spread over a factor of 100


def test_residuals_that_stay_among_their_like_make_no_huge_weight_of_the_floor_between_dead_units() -> None:
    rng = np.random.default_rng(2)
    scale = np.where(np.arange(32) < 31, 1.0, 1e-3)  # one dead unit on each side
    weights = np.abs(rng.normal(size=(32, 32))) * np.maximum(np.outer(scale, scale), 1e-3)
    graph = chain_graph([weights.astype(np.float32)])
    by_size, anywhere = (
        np.array([sizes_of(null(graph, index))[0].max() for index in range(10)]) / weights.max()
        for null in (keep_unit_scale_by_size, keep_unit_scale)
    )
    assert by_size.max() < 4
    assert np.median(anywhere) > 2 * by_size.max()


@settings(max_examples=15)
@given(density=st.floats(0.05, 0.95), seed=st.integers(0, 100))
def test_the_rewired_form_keeps_the_number_of_connections_of_every_unit(density: float, seed: int) -> None:
    graph = chain(density, seed=seed)
    for old, new in zip(sizes_of(graph), sizes_of(keep_unit_scale_rewired(graph, seed)), strict=True):
        for axis in (0, 1):
            assert np.array_equal((old > 0).sum(axis=axis), (new > 0).sum(axis=axis))


def test_rewiring_reaches_every_graph_with_these_degrees_equally_often() -> None:
    """The six 0/1 matrices whose three rows and columns hold one entry each."""
    graph = chain_graph([np.eye(3, dtype=np.float32)])
    seen: dict[bytes, int] = {}
    for index in range(1200):
        drawn = sizes_of(keep_unit_scale_rewired(graph, index))[0] > 0
        seen[drawn.tobytes()] = seen.get(drawn.tobytes(), 0) + 1
    assert len(seen) == 6
    assert max(abs(count / 1200 - 1 / 6) for count in seen.values()) < 0.055


@pytest.mark.parametrize("name", WEIGHT_NULLS)
def test_a_wiring_gets_new_weights_of_the_same_shape_and_stays_as_it_is(name: str) -> None:
    wiring = convolutions()
    if name == "keep_unit_scale_rewired":
        wiring = Wiring(wiring.groups, (wiring.connections[0], wiring.connections[2]))
    before = [connection.weight.clone() for connection in wiring.connections]
    drawn = NULL_MODELS[name](wiring, 0)
    for old, new, untouched in zip(wiring.connections, drawn.connections, before, strict=True):
        assert torch.equal(old.weight, untouched)
        assert new.weight.shape == old.weight.shape
        assert new.weight.dtype == old.weight.dtype
        assert not torch.equal(new.weight, old.weight)
        assert new.sources is old.sources


def test_kernels_of_a_convolution_move_as_a_whole_with_their_signs() -> None:
    first = convolutions().connections[0].weight.reshape(24, 9)
    moved = shuffle_weights(convolutions(), 0).connections[0].weight.reshape(24, 9)
    distance = torch.cdist(moved, first)
    assert distance.min(dim=1).values.max() < 1e-5
    assert sorted(distance.argmin(dim=1).tolist()) == list(range(24))
    scaled = keep_unit_scale(convolutions(), 0).connections[0].weight.reshape(24, 9)
    present = scaled.abs().sum(dim=1) > 0
    assert present.sum() == 23
    likeness = torch.nn.functional.normalize(scaled[present]) @ torch.nn.functional.normalize(first).T
    assert likeness.max(dim=1).values.min() > 0.9999  # every kernel is one of the old ones, larger or smaller


def test_a_parameter_shared_by_two_connections_is_drawn_once() -> None:
    weight = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    groups = tuple(UnitGroup(str(i), "hidden", np.arange(6 * i, 6 * i + 6), i) for i in range(3))
    there = Connection("tied", weight, np.arange(6).reshape(1, 6), np.arange(6, 12).reshape(6, 1), "a")
    back = Connection("tied", weight, np.arange(12, 18).reshape(6, 1), np.arange(6).reshape(1, 6), "b")
    drawn = shuffle_weights(Wiring(groups, (there, back)), 0)
    assert drawn.connections[0].weight is drawn.connections[1].weight


def test_entries_that_join_no_unit_stay_where_they_are() -> None:
    weight = torch.arange(1.0, 13.0).reshape(3, 4)
    groups = (UnitGroup("in", "input", np.arange(3), 0), UnitGroup("out", "output", np.arange(3, 6), 1))
    connection = Connection("w", weight, np.array([[0, 1, -1, 2]]), np.array([[3], [4], [5]]), "w")
    drawn = shuffle_weights(Wiring(groups, (connection,)), 0).connections[0].weight
    assert torch.equal(drawn[:, 2], weight[:, 2])
    assert torch.equal(drawn.flatten().sort().values, weight.flatten().sort().values)
    assert not torch.equal(drawn, weight)


def test_signs_stay_in_place_and_sizes_move_within_them() -> None:
    wiring = convolutions()
    old, new = wiring.connections[2].weight, shuffle_within_signs(wiring, 0).connections[2].weight
    assert torch.equal(old.sign(), new.sign())
    for sign in (-1, 1):
        assert torch.allclose(old[old.sign() == sign].sort().values, new[old.sign() == sign].sort().values)


def test_random_initialisation_fills_pruned_weights_within_the_bound_of_the_layer() -> None:
    drawn = random_initialisation(convolutions(), 0)
    for connection, n_inputs in zip(drawn.connections, (4 * 9, 3 * 9, 8), strict=True):
        bound = n_inputs**-0.5
        assert 0.8 * bound < connection.weight.abs().max() <= bound
        assert (connection.weight != 0).all()


def test_half_precision_weights_come_back_in_half_precision() -> None:
    wiring = convolutions()
    half = Connection("linear", wiring.connections[2].weight.to(torch.bfloat16), *_sides(wiring), "linear")
    drawn = keep_unit_scale(Wiring(wiring.groups, (half,)), 0)
    assert drawn.connections[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.full((8, 5), float("nan")), "not all finite"),
        (torch.empty(8, 5, device="meta"), "meta device"),
    ],
)
def test_weights_that_cannot_be_drawn_from_are_refused_by_name(weight: torch.Tensor, message: str) -> None:
    wiring = convolutions()
    broken = Connection("broken", weight, *_sides(wiring), "broken")
    with pytest.raises(StatisticsError, match=f"'broken'.*{message}"):
        shuffle_weights(Wiring(wiring.groups, (broken,)), 0)


def test_rewiring_a_grouped_convolution_is_refused_and_points_to_the_graph() -> None:
    with pytest.raises(StatisticsError, match=r"'grouped'.*weight_graph"):
        keep_unit_scale_rewired(convolutions(), 0)


@pytest.mark.parametrize("name", ON_GRAPHS)
@pytest.mark.parametrize(
    "sizes",
    [
        np.zeros((3, 4)),  # no edge at all
        np.ones((3, 4)),  # all equal
        np.ones((1, 1)),  # one weight
        np.eye(4),  # one edge per unit
        np.array([[1.0, 0.0], [0.0, 0.0]]),
        np.outer([1e-20, 1.0], [1.0, 1e15]),
    ],
    ids=["zero", "equal", "single", "matching", "one edge", "huge range"],
)
def test_degenerate_layers_have_a_defined_answer(name: str, sizes: np.ndarray) -> None:
    graph = chain_graph([sizes.astype(np.float32)])
    drawn = sizes_of(NULL_MODELS[name](graph, 0))[0]
    assert np.isfinite(drawn).all()
    assert (drawn > 0).sum() == (sizes > 0).sum()


def test_blocks_of_one_graph_are_drawn_independently() -> None:
    block = np.arange(1.0, 37.0, dtype=np.float32).reshape(6, 6)
    units = [np.arange(6 * i, 6 * i + 6) for i in range(3)]
    blocks = (Block(units[0], units[1], block, "a"), Block(units[1], units[2], block, "b"))
    graph = UnitGraph(blocks, np.repeat([0, 1, 2], 6), ("0", "1", "2"))
    first, second = sizes_of(shuffle_weights(graph, 0))
    assert not np.array_equal(first, second)


def _sides(wiring: Wiring) -> tuple[np.ndarray, np.ndarray]:
    return wiring.connections[2].sources, wiring.connections[2].targets
