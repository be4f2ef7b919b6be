"""Random numbers depend on what the caller gave, and on nothing else."""

import subprocess
import sys

import numpy as np
import pytest

from modscope.errors import StatisticsError
from modscope.randomness import generator, numbered, seed_of


def test_an_int_gives_the_same_numbers_every_time():
    assert generator(5).integers(1000, size=9).tolist() == generator(5).integers(1000, size=9).tolist()
    assert generator(np.int64(5)).random() == generator(5).random()


def test_a_generator_is_used_as_it_is_so_a_second_call_goes_on():
    rng = np.random.default_rng(0)
    assert generator(rng) is rng
    assert seed_of(rng) != seed_of(rng)
    assert seed_of(np.random.default_rng(0)) == seed_of(np.random.default_rng(0))


@pytest.mark.parametrize("given", [-1, 1.0, "1", None, True])
@pytest.mark.usefixtures("unchecked_shapes")
def test_anything_else_is_refused(given):
    for function in (generator, seed_of):
        with pytest.raises(StatisticsError, match="non-negative int or a numpy"):
            function(given)


def test_a_numbered_draw_does_not_depend_on_the_draws_before_it():
    backwards = [numbered(3, "null", index).random() for index in reversed(range(5))]
    assert backwards[::-1] == [numbered(3, "null", index).random() for index in range(5)]


def test_numbered_draws_differ_by_seed_name_and_index():
    draws = {
        numbered(seed, name, index).random()
        for seed in (0, 1, 2**63 - 1)
        for name in ("null", "nulls", "mask of left", "")
        for index in (0, 1, 2**32)
    }
    assert len(draws) == 3 * 4 * 3


def test_a_numbered_draw_is_the_same_in_another_process():
    code = "from modscope.randomness import numbered; print(numbered(7, 'mask', 3).integers(10**9))"
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert runs == {f"{numbered(7, 'mask', 3).integers(10**9)}\n"}
