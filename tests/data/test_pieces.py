"""Tokens become text."""

import pytest

from modscope.data.pieces import joined, token_pieces


def test_the_marks_of_begin_and_end_are_left_out():
    assert joined([1, 3, 4, 3, 2], ("?", "<s>", "</s>", "ab", " c")) == "ab cab"


@pytest.mark.data
def test_the_vocabulary_has_512_pieces(data_folder):
    assert len(token_pieces(data_folder)) == 512
