"""Generated strings and lists are what they claim to be."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope.errors import TaskError
from modscope.tasks.algorithmic import (
    CLOSE,
    END,
    OPEN,
    PADDING,
    START,
    balanced_brackets,
    balanced_string,
    bracket_strings,
    is_balanced,
    modular_addition,
    modular_sums,
    number_lists,
    sorting,
)


def _reduced(text: str) -> str:
    """Balanced is what shrinks to nothing when "()" is taken out again and again."""
    while "()" in text:
        text = text.replace("()", "")
    return text


def test_every_pair_is_in_exactly_one_split_with_its_sum():
    data = modular_sums(7)
    tokens = torch.cat([data.train.inputs, data.test.inputs])
    assert len(data.train) == 14
    assert sorted(map(tuple, tokens.tolist())) == [(a, b, 7) for a in range(7) for b in range(7)]
    assert torch.equal(data.test.targets, (data.test.inputs[:, 0] + data.test.inputs[:, 1]) % 7)


def test_a_split_without_pairs_is_refused():
    for share in (0.0, 1.0):
        with pytest.raises(TaskError, match="change train_share"):
            modular_sums(7, train_share=share)


def test_modular_addition_reads_the_last_position_without_the_equals_sign():
    logits = torch.zeros(1, 3, 8)
    logits[0, -1, 4], logits[0, -1, 7] = 5.0, 50.0
    task = modular_addition(modular_sums(7), modulus=7)
    assert task.correct(logits, torch.tensor([4])).tolist() == [True]
    assert task.loss(logits, torch.tensor([4])).dtype == torch.float64


@settings(max_examples=15)
@given(st.integers(0, 10_000))
def test_strings_are_balanced_exactly_where_their_target_says(seed):
    strings = bracket_strings(seed, 20)
    for row, target in zip(strings.inputs.tolist(), strings.targets.tolist(), strict=True):
        end = row.index(END)
        assert row[0] == START
        assert set(row[end + 1 :]) <= {PADDING}
        text = "".join({OPEN: "(", CLOSE: ")"}[token] for token in row[1:end])
        assert (_reduced(text) == "") == bool(target)
        assert is_balanced(np.array([1 if bracket == "(" else -1 for bracket in text])) == bool(target)


def test_70_percent_of_strings_are_balanced():
    assert float(bracket_strings(0, 4000).targets.float().mean()) == pytest.approx(0.7, abs=0.03)


def test_balanced_strings_of_one_length_are_equally_likely():
    rng = np.random.default_rng(0)
    counts = Counter(tuple(balanced_string(4, rng).tolist()) for _ in range(7000))
    assert len(counts) == 14  # Catalan number of 4
    assert min(counts.values()) > 500 - 4 * 500**0.5
    assert max(counts.values()) < 500 + 4 * 500**0.5


def test_lists_are_followed_by_themselves_in_order():
    lists = number_lists(0, 200)
    for row, ordered in zip(lists.inputs.tolist(), lists.targets.tolist(), strict=True):
        assert row[10] == 51
        assert sorted(row[:10]) == row[11:] == ordered
        assert len(set(ordered)) == 10
    repeating = number_lists(0, 200, may_repeat=True).targets
    assert bool((repeating[:, 1:] == repeating[:, :-1]).any())
    with pytest.raises(TaskError, match="no 10 different numbers below 5"):
        number_lists(0, 1, n_numbers=5)


def test_sorting_counts_the_share_of_numbers_right():
    lists = number_lists(0, 2, length=3, n_numbers=9)
    logits = torch.nn.functional.one_hot(lists.inputs[:, 1:], 10).float()  # positions 3 to 5 name the next token
    logits = torch.cat([logits, torch.zeros(2, 1, 10)], dim=1)
    task = sorting(lists, lists)
    assert task.correct(logits, lists.targets).tolist() == [1.0, 1.0]
    logits[1, 3] = torch.nn.functional.one_hot((lists.targets[1, 0] + 1) % 9, 10).float()
    assert task.correct(logits, lists.targets).tolist() == pytest.approx([1.0, 2 / 3])


def test_balanced_brackets_reads_the_first_position():
    strings = bracket_strings(0, 3)
    logits = torch.zeros(3, 42, 2)
    logits[torch.arange(3), 0, strings.targets] = 1.0
    assert balanced_brackets(strings, strings).correct(logits, strings.targets).all()
