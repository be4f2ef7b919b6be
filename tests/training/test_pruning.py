"""The cubic schedule of magnitude pruning, and what it keeps."""

import pytest
import torch
from torch import nn

from modscope.errors import MaskError
from modscope.models.mlp import mlp
from modscope.training.pruning import MagnitudePruning, largest, remove


def test_the_schedule_is_the_papers_polynomial():
    pruning = MagnitudePruning(0.1, begin=1000, end=2500)
    assert pruning.density(999) == 1.0
    assert pruning.density(1000) == pytest.approx(1.0)
    assert 1 - pruning.density(1750) == pytest.approx(0.9 + (0 - 0.9) * 0.5**3)
    assert pruning.density(2500) == pruning.density(4000) == 0.1


def test_filans_setting_starts_at_half_and_ends_at_a_tenth():
    pruning = MagnitudePruning(0.1, begin=0, end=100, initial_density=0.5)
    assert [pruning.density(step) for step in (0, 50, 100)] == pytest.approx([0.5, 0.1 + 0.4 / 8, 0.1])


def test_removals_are_due_every_so_many_steps_and_at_the_end():
    pruning = MagnitudePruning(0.5, begin=3, end=10, every=4)
    assert [step for step in range(15) if pruning.is_due(step)] == [3, 7, 10]


def test_the_largest_weights_of_every_layer_are_kept_and_biases_are_not_touched():
    model = nn.Linear(4, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.1, -3.0, 2.0, -0.5]]))
        model.bias.fill_(1e-9)
    kept = largest(model, 0.5)
    assert {name: keep.tolist() for name, keep in kept.items()} == {"weight": [[False, True, True, False]]}
    remove(model, kept)
    assert model.weight.tolist() == [[0.0, -3.0, 2.0, 0.0]]
    assert model.bias.item() == pytest.approx(1e-9)


def test_pruning_further_keeps_a_subset():
    model = mlp([10, 10], rng=0)
    half = largest(model, 0.5)["output.weight"]
    remove(model, {"output.weight": half})
    fifth = largest(model, 0.2)["output.weight"]
    assert int(fifth.sum()) == 20
    assert bool((half | ~fifth).all())


def test_ties_are_broken_and_the_count_is_exact():
    model = nn.Linear(6, 1)
    nn.init.ones_(model.weight)
    assert largest(model, 0.5)["weight"].sum() == 3


@pytest.mark.parametrize(
    "arguments",
    [
        {"final_density": 0.0, "begin": 0, "end": 1},
        {"final_density": 0.6, "begin": 0, "end": 1, "initial_density": 0.5},
        {"final_density": 0.5, "begin": 2, "end": 1},
        {"final_density": 0.5, "begin": 0, "end": 1, "every": 0},
    ],
)
def test_impossible_schedules_are_refused(arguments):
    with pytest.raises(MaskError, match="got"):
        MagnitudePruning(**arguments)
