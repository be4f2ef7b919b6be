"""Does the test of clusterability see modules, and only modules, whoever draws the samples?"""

from __future__ import annotations

import json
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from modscope.errors import PartitionError, StatisticsError
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.graph.weights import chain_graph
from modscope.nulls import shuffle_weights
from modscope.nulls.simulated import SimulatedChain
from modscope.partition.clusterability import clusterability, judged
from modscope.partition.dust import WithoutDust
from modscope.partition.partition import Partition
from modscope.partition.quality import n_cut
from modscope.partition.spectral import Spectral
from modscope.statistics import Comparison
from reference.workers import assert_same_for_any_number_of_workers

SMALL = SimulatedChain(n_units=24, n_layers=4, n_modules=3)


def comparison_with(observed: float, mean: float, n_samples: int = 99) -> Comparison:
    """A comparison whose null samples lie within .01 of their mean."""
    return Comparison(observed, np.linspace(mean - 0.01, mean + 0.01, n_samples), "less", "by hand")


def test_planted_modules_are_found_under_both_nulls_and_a_network_without_is_not() -> None:
    planted = clusterability(replace(SMALL, strength=20)(rng=0), Spectral(3), n_samples=39)
    assert planted.verdict == "yes", planted.sentence
    assert all(comparison.p_value == comparison.floor for comparison in planted.values())
    plain = clusterability(SMALL(rng=0), Spectral(3), n_samples=39)
    assert plain.verdict == "no", plain.sentence


def test_the_tested_partition_has_the_observed_n_cut_under_every_null() -> None:
    graph = replace(SMALL, strength=5)(rng=1)
    result = clusterability(graph, Spectral(3), n_samples=19, rng=7)
    for comparison in result.values():
        assert comparison.observed == pytest.approx(n_cut(graph, result.partition), rel=1e-12)
        assert comparison.experiment is not None
        assert comparison.experiment.observed(0) == comparison.observed
    assert list(result) == ["shuffle_weights", "keep_unit_scale"]
    assert len(result) == 2
    assert "keep_unit_scale" in result
    assert "shuffle_nonzero_weights" not in result


def test_one_null_may_be_given_by_name_or_as_a_function() -> None:
    graph = SMALL(rng=0)
    by_name = clusterability(graph, Spectral(2), nulls="shuffle_weights", n_samples=19, n_observed=1)
    by_function = clusterability(graph, Spectral(2), nulls=shuffle_weights, n_samples=19, n_observed=1)
    assert np.array_equal(by_name["shuffle_weights"].null_samples, by_function["shuffle_weights"].null_samples)


def test_samples_are_identical_for_any_number_of_workers() -> None:
    graph = replace(SMALL, strength=3)(rng=2)

    def samples(executor: Executor | None) -> np.ndarray:
        result = clusterability(graph, Spectral(3), n_samples=24, rng=5, executor=executor, n_observed=2)
        return np.concatenate([comparison.null_samples for comparison in result.values()])

    assert_same_for_any_number_of_workers(samples)


def test_a_comparison_of_clusterability_can_be_extended() -> None:
    graph = SMALL(rng=3)
    longer = clusterability(graph, Spectral(2), nulls="shuffle_weights", n_samples=30, n_observed=1)["shuffle_weights"]
    short = clusterability(graph, Spectral(2), nulls="shuffle_weights", n_samples=20, n_observed=1)["shuffle_weights"]
    assert np.array_equal(short.extended(10).null_samples, longer.null_samples)


def test_an_extended_test_has_the_samples_of_a_longer_one_and_a_verdict_that_allows_for_two_looks() -> None:
    graph = replace(SMALL, strength=20)(rng=3)
    first = clusterability(graph, Spectral(3), n_samples=19, n_observed=2)
    extended, longer = first.extended(20), clusterability(graph, Spectral(3), n_samples=39, n_observed=2)
    for null, comparison in extended.items():
        assert np.array_equal(comparison.null_samples, longer[null].null_samples)
        assert comparison.looks == (19, 39)
        assert comparison.p_value < comparison.anytime_p_value < 0.05
        assert f"p = {comparison.anytime_p_value:.3g} after 2 looks" in extended.sentence
    assert extended.verdict == longer.verdict == "yes"
    assert extended.n_cut == first.n_cut


def test_after_two_looks_the_verdict_goes_by_the_anytime_valid_p() -> None:
    """p = .05 from the plain count, but r = 1 of 39 after a look at 19 is not enough at any time."""
    samples = np.concatenate([[1.4], np.linspace(1.9, 2.1, 38)])
    once = Comparison(1.5, samples, "less", "by hand", looks=(39,))
    twice = replace(once, looks=(19, 39))
    assert once.p_value == twice.p_value == pytest.approx(0.05)
    assert twice.anytime_p_value > 0.05
    assert judged(once, once, density=1.0)[0] == "yes"
    assert judged(twice, twice, density=1.0)[0] == "no"


def test_the_interval_tells_where_further_clusterings_fall() -> None:
    """Rough clusterings of a graph without modules differ from seed to seed."""
    graph, rough = SMALL(rng=4), Spectral(6, refine=False, n_starts=1)
    result = clusterability(graph, rough, nulls="shuffle_weights", n_samples=1, n_observed=20, min_share=0.0)
    assert result.interval is not None
    low, high = result.interval
    further = [n_cut(graph, rough(graph, rng=seed)) for seed in range(100, 200)]
    assert 0.85 <= np.mean([low <= value <= high for value in further]) <= 1
    assert low > min(further) - np.ptp(further)  # and it is no wider than it has to be
    assert high < max(further) + np.ptp(further)


def test_stability_is_the_mean_agreement_of_repeated_clusterings() -> None:
    result = clusterability(replace(SMALL, strength=30)(rng=0), Spectral(3), n_samples=19)
    assert result.stability == 1.0
    noisy = clusterability(SMALL(rng=0), Spectral(5), n_samples=19, n_observed=3)
    scores = [
        adjusted_rand_score(noisy.partitions[i].labels, noisy.partitions[j].labels) for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert noisy.stability == pytest.approx(np.mean(scores))
    assert clusterability(SMALL(rng=0), Spectral(2), n_samples=19, n_observed=1).stability is None


@pytest.mark.parametrize(
    ("weaker", "stricter", "density", "state", "words"),
    [
        (comparison_with(1.5, 2.0), comparison_with(1.5, 2.0), 1.0, "yes", "more clustered than chance"),
        (comparison_with(1.5, 2.0), comparison_with(1.5, 1.5), 1.0, "part", "scale of its units explains that"),
        (comparison_with(1.5, 2.0), comparison_with(1.5, 1.6), 1.0, "part", "explains over half"),
        (comparison_with(1.5, 2.0), comparison_with(1.5, 1.6), 0.1, "yes", "more clustered than chance"),
        (comparison_with(1.5, 1.5), comparison_with(1.5, 2.0), 1.0, "no", "chance explains"),
        (
            comparison_with(1.989, 2.0),
            comparison_with(1.989, 2.0),
            1.0,
            "no",
            "chance explains",
        ),  # p = .01, effect .5 %
        (comparison_with(1.5, 2.0), None, 1.0, "part", "was not run"),
        (None, comparison_with(1.5, 2.0), 1.0, "na", "was not run"),
        (comparison_with(1.5, 2.0, 9), comparison_with(1.5, 2.0, 9), 1.0, "na", "9 null samples cannot"),
    ],
)
def test_the_verdict_follows_from_both_nulls(
    weaker: Comparison | None, stricter: Comparison | None, density: float, state: str, words: str
) -> None:
    verdict, sentence = judged(weaker, stricter, density=density)
    assert verdict == state
    assert words in sentence


def test_in_a_sparse_network_the_rewired_null_tells_what_scale_and_degrees_explain() -> None:
    weaker, stricter = comparison_with(1.5, 2.0), comparison_with(1.5, 1.6)
    assert judged(weaker, stricter, comparison_with(1.5, 1.9), density=0.1)[0] == "yes"
    assert judged(weaker, stricter, comparison_with(1.5, 1.6), density=0.1)[0] == "part"


def test_a_pair_of_units_on_one_large_weight_is_no_cluster() -> None:
    """Two modules of 10 + 10 units, and a pair on a thread that plain spectral clustering takes for a third."""
    rng = np.random.default_rng(0)
    weights = np.full((21, 21), 0.02)
    for start in (0, 10):
        weights[start : start + 10, start : start + 10] = 1 + rng.random((10, 10))
    weights[20], weights[:, 20] = 0, 0
    weights[20, 20], weights[0, 20] = 0.2, 0.01
    graph = chain_graph([weights])
    plain = Spectral(3)(graph, rng=0)
    assert min(plain.sizes) == 2
    without = WithoutDust(Spectral(3))(graph, rng=0)
    assert min(without.sizes) > 2
    assert without.labels[20] == without.labels[21 + 20] == without.labels[21]  # both joined the cluster of target 0
    assert "too small to count" in without.notes[-1]


def test_without_dust_changes_nothing_where_there_is_none_and_with_share_zero() -> None:
    graph = replace(SMALL, strength=5)(rng=0)
    assert np.array_equal(WithoutDust(Spectral(3))(graph, rng=4).labels, Spectral(3)(graph, rng=4).labels)
    sparse = SimulatedChain(n_units=20, density=0.08)(rng=1)
    labels = [partitioner(sparse, rng=4).labels for partitioner in (WithoutDust(Spectral(3), 0.0), Spectral(3))]
    assert np.array_equal(*labels)
    with pytest.raises(PartitionError, match="min_share"):
        WithoutDust(Spectral(3), 1.0)


def test_sparse_blocks_lose_their_dust_like_dense_ones() -> None:
    import scipy.sparse as sp

    graph = SimulatedChain(n_units=40, density=0.04)(rng=2)
    blocks = tuple(Block(b.sources, b.targets, sp.csr_array(b.sizes), b.name) for b in graph.blocks)
    in_csr = UnitGraph(blocks, graph.group_of, graph.group_names)
    dense, sparse = (WithoutDust(Spectral(3), 0.3)(g, rng=0) for g in (graph, in_csr))
    assert dense.notes == sparse.notes
    assert np.array_equal(dense.labels, sparse.labels)


def test_several_components_and_isolated_units_have_a_defined_answer() -> None:
    two = np.kron(np.eye(2), np.ones((6, 6))).astype(np.float32)
    two[0] = 0  # an isolated target
    result = clusterability(chain_graph([two]), Spectral(2), nulls=("shuffle_weights", "keep_unit_scale"), n_samples=19)
    assert result.n_cut == pytest.approx(0.0, abs=1e-9)
    assert result["shuffle_weights"].p_value == pytest.approx(0.05)
    assert result["keep_unit_scale"].z_score is None  # equal weights on kept positions: every sample is the network
    assert result["keep_unit_scale"].p_value == 1.0
    assert result.verdict == "part"
    assert result.partition.labels[12] == -1
    json.dumps(result.to_dict(), allow_nan=False)


def test_results_come_as_table_record_picture_and_text() -> None:
    pytest.importorskip("matplotlib").use("agg")
    result = clusterability(replace(SMALL, strength=8)(rng=0), Spectral(3), n_samples=19)
    frame = result.to_frame()
    assert frame["null"].to_list() == ["shuffle_weights", "keep_unit_scale"]
    assert frame["p_value"].to_list() == [comparison.p_value for comparison in result.values()]
    record = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert record["verdict"] == result.verdict
    assert record["labels"] == result.partition.labels.tolist()
    assert len(result.plot().patches) > 2
    assert result.sentence in repr(result)
    assert "<table" in result._repr_html_()


def test_what_cannot_be_done_is_refused_in_words() -> None:
    graph = SMALL(rng=0)
    with pytest.raises(StatisticsError, match="no null model 'shuffle'"):
        clusterability(graph, Spectral(2), nulls="shuffle")
    with pytest.raises(StatisticsError, match="at least one null model"):
        clusterability(graph, Spectral(2), nulls=())
    with pytest.raises(StatisticsError, match="at least one null model, sample"):
        clusterability(graph, Spectral(2), n_samples=0)
    with pytest.raises(StatisticsError, match="randomises labels"):
        clusterability(graph, Spectral(2), nulls="shuffle_labels_within_groups", n_samples=19)
    with pytest.raises(PartitionError):
        clusterability(graph, Spectral(10_000), n_samples=19)
    result = clusterability(graph, Spectral(2), nulls="shuffle_weights", n_samples=19, n_observed=1)
    with pytest.raises(StatisticsError, match="'keep_unit_scale' was not run; shuffle_weights were"):
        result["keep_unit_scale"]


def test_any_partitioner_will_do_and_a_constant_one_has_no_interval() -> None:
    def by_layer(graph: UnitGraph, *, rng: object = 0) -> Partition:
        return Partition(graph.group_of)

    result = clusterability(SMALL(rng=0), by_layer, n_samples=19)
    assert result.n_cut == pytest.approx(4.0)  # one cluster per layer: every edge is cut
    assert result.interval is None
    assert result.verdict == "no"
    assert all(comparison.z_score is None for comparison in result.values())
