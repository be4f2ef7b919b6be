import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from modscope.errors import PartitionError
from modscope.partition.agreement import agreement, agreements, corresponding_units, matched, mean_agreement
from modscope.partition.partition import Partition


def test_the_same_clusters_under_other_names_agree_fully():
    found = agreement(Partition(np.array([0, 0, 1, 1, 2])), Partition(np.array([5, 5, 3, 3, 0])))
    assert found.adjusted_rand == found.adjusted_mutual_information == 1


def test_units_that_one_partition_leaves_out_do_not_count():
    found = agreement(Partition(np.array([0, 0, 1, 1, -1])), Partition(np.array([0, 0, 1, 1, 1])))
    assert (found.adjusted_rand, found.n_units) == (1, 4)


def test_random_partitions_agree_by_chance_only():
    rng = np.random.default_rng(0)
    scores = [agreement(*(Partition(rng.integers(0, 5, 200)) for _ in range(2))).adjusted_rand for _ in range(50)]
    assert abs(np.mean(scores)) < 0.01


def test_several_partitions_are_compared_pair_by_pair():
    rng = np.random.default_rng(0)
    partitions = {name: Partition(rng.integers(0, 3, 40)) for name in ("epoch 1", "epoch 2", "epoch 3")}
    found = agreements(partitions)
    expected = adjusted_rand_score(partitions["epoch 1"].labels, partitions["epoch 3"].labels)
    assert found.adjusted_rand[0, 2] == pytest.approx(expected)
    assert found.to_frame().rows()[1] == ("epoch 1", "epoch 3", pytest.approx(expected))
    assert found.to_dict()["names"] == ["epoch 1", "epoch 2", "epoch 3"]


def test_matching_undoes_a_renaming():
    first = Partition(np.array([0, 0, 1, 1, 1, 2, -1]))
    renamed, overlap = matched(first, Partition(np.array([4, 4, 0, 0, 0, 1, -1])))
    np.testing.assert_array_equal(renamed.labels, first.labels)
    np.testing.assert_array_equal(overlap, [1, 1, 1])


def test_a_cluster_without_a_partner_gets_a_new_number():
    renamed, overlap = matched(Partition(np.array([0, 0, 0, 0])), Partition(np.array([0, 1, 1, 1])))
    np.testing.assert_array_equal(renamed.labels, [1, 0, 0, 0])
    np.testing.assert_allclose(overlap, [3 / 4])


def test_partitions_of_other_units_are_refused():
    with pytest.raises(PartitionError, match="2 and 3 units"):
        agreement(Partition(np.array([0, 1])), Partition(np.array([0, 1, 1])))


def test_partitions_without_a_common_unit_are_refused():
    with pytest.raises(PartitionError, match="nothing to compare"):
        agreement(Partition(np.array([0, -1])), Partition(np.array([-1, 0])))


def test_units_in_another_order_sign_and_scale_find_their_partners_and_clusters_agree_again():
    rng = np.random.default_rng(0)
    group_of = np.repeat([0, 1, 2], [10, 20, 5])
    values = rng.normal(size=(200, 35)).astype(np.float32)
    order = np.concatenate([rng.permutation(np.flatnonzero(group_of == group)) for group in range(3)])
    others = 3 * values[:, order] * rng.choice([-1, 1], 35) + 0.2 * rng.normal(size=(200, 35)) + 7
    found = corresponding_units(values, others, group_of)
    np.testing.assert_array_equal(order[found], np.arange(35))
    labels = rng.integers(0, 3, 35)
    renumbered = Partition(labels[order])
    assert agreement(Partition(labels), renumbered).adjusted_rand < 0.5
    assert agreement(Partition(labels), Partition(renumbered.labels[found])).adjusted_rand == 1


def test_units_are_paired_one_to_one_within_their_group_even_where_values_never_change():
    rng = np.random.default_rng(1)
    values, others = rng.normal(size=(2, 30, 12))
    values[:, :4], others[:, 8:] = 0.1, 0.3
    group_of = np.arange(12) % 3
    found = corresponding_units(values, others, group_of)
    assert sorted(found) == list(range(12))
    np.testing.assert_array_equal(group_of[found], group_of)


@pytest.mark.parametrize(
    ("values", "others", "groups", "words"),
    [
        (np.ones((3, 4)), np.ones((3, 5)), np.zeros(4, int), r"\(3, 4\) and \(3, 5\) for 4 units"),
        (np.ones((3, 4)), np.ones((3, 4)), np.zeros(5, int), "for 5 units"),
        (np.ones((1, 4)), np.ones((1, 4)), np.zeros(4, int), "two or more examples"),
        (np.ones((3, 4)), np.full((3, 4), np.nan), np.zeros(4, int), "finite"),
    ],
)
def test_values_that_cannot_pair_units_are_refused(values, others, groups, words):
    with pytest.raises(PartitionError, match=words):
        corresponding_units(values, others, groups)


def test_mean_agreement_needs_two_partitions():
    one, other = Partition(np.array([0, 0, 1, 1])), Partition(np.array([0, 1, 0, 1]))
    assert mean_agreement([one]) is None
    assert mean_agreement([one, one]) == 1
    pairs = [adjusted_rand_score(a.labels, b.labels) for a, b in ((one, one), (one, other), (one, other))]
    assert mean_agreement([one, one, other]) == pytest.approx(np.mean(pairs))
