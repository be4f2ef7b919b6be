"""Examples in memory, and the batches they are read in."""

import pytest
import torch

from modscope.data.examples import Examples
from modscope.errors import DataError


def test_batches_cover_the_examples_in_order_as_often_as_asked():
    batches = Examples(torch.arange(7.0), torch.arange(7)).batches(3)
    assert len(batches) == 3
    for _ in range(2):
        assert [inputs.tolist() for inputs, _ in batches] == [[0, 1, 2], [3, 4, 5], [6]]
        assert torch.equal(torch.cat([targets for _, targets in batches]), torch.arange(7))


def test_chosen_examples_keep_their_targets():
    chosen = Examples(torch.arange(5.0), 10 * torch.arange(5))[torch.tensor([4, 1])]
    assert chosen.inputs.tolist() == [4, 1]
    assert chosen.targets.tolist() == [40, 10]


def test_inputs_are_encoded_batch_by_batch_and_stay_small_in_memory():
    stored = torch.arange(5, dtype=torch.uint8)
    batches = Examples(stored, torch.arange(5)).batches(2, encode=lambda digits: digits.float() / 2)
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), torch.arange(5) / 2)
    assert batches.examples.inputs is stored


def test_unequal_numbers_and_empty_batches_are_refused():
    with pytest.raises(DataError, match="2 inputs and 3 targets"):
        Examples(torch.zeros(2), torch.zeros(3))
    with pytest.raises(DataError, match="size 0"):
        Examples(torch.zeros(2), torch.zeros(2)).batches(0)
