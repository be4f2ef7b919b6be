import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope.graph.operator import normalized_operator
from modscope.graph.unit_graph import UnitGraph
from modscope.partition.quality import n_cut
from modscope.partition.refine import refined
from planted.graphs import chain, gaussian_mlp, pruned, random_blocks

GRAPHS = {
    "dense": chain(gaussian_mlp(widths=(50, 40, 30))),
    "sparse": chain(pruned(gaussian_mlp(widths=(150, 120, 100)), 0.95)),
    "odd cycles": random_blocks(np.random.default_rng(3), n_units=60, density=0.5),
    "odd cycles, sparse": random_blocks(np.random.default_rng(3), n_units=200, density=0.02),
}


def n_cut_of(graph: UnitGraph, units: np.ndarray, labels: np.ndarray) -> float:
    everyone = np.full(graph.n_units, -1)
    everyone[units] = labels
    return n_cut(graph, everyone)


@pytest.mark.parametrize("name", GRAPHS)
def test_numba_and_numpy_make_the_same_moves(name):
    operator = normalized_operator(GRAPHS[name])
    start = np.random.default_rng(0).integers(0, 5, len(operator.units))
    compiled, plain = (refined(operator, start, 5, use_numba=flag) for flag in (True, False))
    np.testing.assert_array_equal(compiled, plain)
    assert not np.array_equal(plain, start)


@pytest.mark.parametrize("name", GRAPHS)
def test_few_single_moves_still_lower_the_n_cut_by_much(name):
    graph = GRAPHS[name]
    operator = normalized_operator(graph)
    start = np.random.default_rng(0).integers(0, 4, len(operator.units))
    labels = refined(operator, start, 4)
    reached = n_cut_of(graph, operator.units, labels)
    for unit in range(0, len(labels), 7):
        for cluster in range(4):
            moved = labels.copy()
            moved[unit] = cluster
            if len(np.unique(moved)) == 4:
                assert n_cut_of(graph, operator.units, moved) > reached - 0.01 * reached - 1e-3


@given(st.integers(0, 10_000))
@settings(max_examples=20)
def test_refinement_lowers_the_n_cut_and_empties_no_cluster(seed):
    rng = np.random.default_rng(seed)
    graph = random_blocks(rng, n_units=25)
    operator = normalized_operator(graph)
    if len(operator.units) < 6:
        return
    start = rng.permutation(np.arange(len(operator.units)) % 3)
    labels = refined(operator, start, 3)
    assert len(np.unique(labels)) == 3
    assert n_cut_of(graph, operator.units, labels) <= n_cut_of(graph, operator.units, start) + 1e-6


def test_the_labels_given_are_left_alone():
    operator = normalized_operator(GRAPHS["dense"])
    start = np.random.default_rng(0).integers(0, 4, len(operator.units))
    before = start.copy()
    refined(operator, start, 4)
    np.testing.assert_array_equal(start, before)
