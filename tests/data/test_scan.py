"""SCAN's lines, words and splits."""

import pytest
import torch

from modscope.data.scan import SPLITS, Vocabulary, read_scan, scan
from modscope.errors import DataError


def test_lines_are_read_into_words_and_actions():
    text = "IN: run twice OUT: I_RUN I_RUN\nIN: jump OUT: I_JUMP\n"
    assert read_scan(text, "file") == [(("run", "twice"), ("I_RUN", "I_RUN")), (("jump",), ("I_JUMP",))]


def test_other_lines_are_refused_with_their_number():
    for line in ("jump OUT: I_JUMP", "IN: jump", ""):
        with pytest.raises(DataError, match="line 2 of file"):
            read_scan(f"IN: jump OUT: I_JUMP\n{line}\n", "file")


def test_sequences_are_closed_and_filled_up():
    words = Vocabulary(("run", "twice"))
    assert words.encoded([("run", "twice"), ("run",), ()], 4).tolist() == [[0, 1, 2, 3], [0, 2, 3, 3], [2, 3, 3, 3]]


def test_unknown_words_and_long_sequences_are_refused():
    words = Vocabulary(("run", "twice"))
    with pytest.raises(DataError, match="'jump' is no word"):
        words.encoded([("jump",)], 4)
    with pytest.raises(DataError, match="more than 1 words"):
        words.encoded([("run", "twice")], 2)


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(DataError, match="simple, length"):
        scan("addprim_run", tmp_path)


@pytest.mark.data
def test_the_splits_have_their_published_sizes(data_folder):
    sizes = {}
    for split in SPLITS:
        data = scan(split, data_folder)
        sizes[split] = (len(data.train), len(data.test))
        assert len(data.commands.words) == 13
        assert len(data.actions.words) == 6
        assert bool((data.train.targets == data.actions.end).sum(dim=1).eq(1).all())
    assert sizes == {
        "simple": (16728, 4182),
        "length": (16990, 3920),
        "addprim_jump": (14670, 7706),
        "addprim_turn_left": (21890, 1208),
    }


@pytest.mark.data
def test_in_the_jump_split_no_training_command_but_jump_itself_has_the_word(data_folder):
    data = scan("addprim_jump", data_folder)
    jump = data.commands.words.index("jump")
    with_jump = data.train.inputs[(data.train.inputs == jump).any(dim=1)]
    alone = data.commands.encoded([("jump",)], 10)
    assert torch.equal(with_jump.unique(dim=0), alone)
