import numpy as np
import pytest

from modscope.errors import PartitionError
from modscope.partition.partition import Partition


def test_sub_clusters_are_the_units_of_one_cluster_in_one_group():
    partition = Partition(np.array([0, 1, 0, -1, 1, 1]))
    found = partition.sub_clusters(np.array([0, 0, 0, 1, 1, 1]))
    described = [(part.cluster, part.group, part.unit_ids.tolist()) for part in found]
    assert described == [(0, 0, [0, 2]), (1, 0, [1]), (1, 1, [4, 5])]


def test_a_partition_that_leaves_out_every_unit_has_no_sub_clusters():
    assert Partition(np.array([-1, -1])).sub_clusters(np.array([0, 1])) == []


def test_clusters_are_counted_without_the_units_left_out():
    partition = Partition(np.array([3, -1, 0, 3]))
    assert partition.n_clusters == 2
    np.testing.assert_array_equal(partition.clusters, [0, 3])
    np.testing.assert_array_equal(partition.sizes, [1, 2])


def test_the_table_has_a_row_per_unit():
    assert Partition(np.array([0, -1])).to_frame().rows() == [(0, 0), (1, -1)]


def test_a_record_gives_the_partition_back():
    partition = Partition(np.array([0, -1, 2]), ("one note",))
    record = partition.to_dict()
    np.testing.assert_array_equal(record["labels"], partition.labels)
    assert record["notes"] == ["one note"]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("labels", [np.array([0.5, 1.0]), np.array([[0, 1]]), np.array([0, -2])])
def test_impossible_labels_are_refused(labels):
    with pytest.raises(PartitionError, match="labels must be"):
        Partition(labels)


def test_groups_of_another_length_are_refused():
    with pytest.raises(PartitionError, match="group_of has 3 units"):
        Partition(np.array([0, 1])).sub_clusters(np.array([0, 0, 0]))
