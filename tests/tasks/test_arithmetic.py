"""Numbers, digits and results: what the arithmetic tasks show and what they want."""

import pytest
import torch

from modscope.data.examples import DataSet
from modscope.errors import TaskError
from modscope.models.arithmetic import PairByPair
from modscope.models.mlp import mlp
from modscope.tasks.arithmetic import (
    add_or_multiply,
    both_additions,
    both_operations,
    double_addition,
    first_addition,
    one_hot_digits,
    one_operation,
    second_addition,
)
from modscope.tasks.task import evaluate
from modscope.training.fit import fit


@pytest.fixture(scope="module")
def additions() -> DataSet:
    return double_addition(0, n_train=500, n_test=200)


@pytest.fixture(scope="module")
def operations() -> DataSet:
    return add_or_multiply(0, n_train=500, n_test=200)


def _number(digits: list[int]) -> int:
    ones, tens = digits
    return 10 * tens + ones


def _one_hot(digits: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(digits, 10).flatten(1).float()


def test_both_sums_are_right(additions):
    for row, target in zip(additions.train.inputs.tolist(), additions.train.targets.tolist(), strict=True):
        a, b, c, d = (_number(row[i : i + 2]) for i in (0, 2, 4, 6))
        assert _number(target[:2]) == (a + b) % 100
        assert _number(target[2:]) == (c + d) % 100


def test_results_of_both_operations_are_right(operations):
    asked = set()
    for row, target in zip(operations.train.inputs.tolist(), operations.train.targets.tolist(), strict=True):
        a, b = _number(row[:2]), _number(row[2:4])
        asked.add(row[4])
        assert _number(target) == (a * b if row[4] else a + b) % 100
    assert asked == {0, 1}


def test_inputs_are_one_hot_and_targets_no_part_of_them(additions, operations):
    inputs = one_hot_digits(additions.train.inputs)
    assert inputs.shape == (500, 80)
    assert inputs[0].reshape(8, 10).argmax(dim=1).tolist() == additions.train.inputs[0].tolist()
    inputs = one_hot_digits(operations.train.inputs)
    assert inputs.shape == (500, 42)
    assert inputs[0, 40:].argmax() == operations.train.inputs[0, 4]
    assert inputs.sum(dim=1).unique().tolist() == [5]


def test_each_addition_is_right_by_its_own_outputs(additions):
    targets = additions.test.targets
    first, second, both = first_addition(additions), second_addition(additions), both_additions(additions)
    logits = _one_hot(targets)
    assert all(bool(task.correct(logits, targets).all()) for task in (first, second, both))
    logits[:, 20:30] = logits[:, 20:30].roll(1, dims=1)  # a wrong digit of the second sum
    assert [float(task.correct(logits, targets).float().mean()) for task in (first, second, both)] == [1, 0, 0]


def test_the_loss_is_the_mean_over_the_digits_that_count(additions):
    targets = additions.test.targets[:5]
    logits = torch.randn(5, 40, generator=torch.Generator().manual_seed(0))
    log_probability = logits.reshape(5, 4, 10).log_softmax(dim=2)
    by_digit = -log_probability.gather(2, targets[:, :, None]).squeeze(2).mean(dim=0)
    tasks = (first_addition(additions), second_addition(additions), both_additions(additions))
    losses = [task.loss(logits, targets).item() for task in tasks]
    assert losses == pytest.approx([by_digit[:2].mean().item(), by_digit[2:].mean().item(), by_digit.mean().item()])


def test_the_two_additions_are_one_function_and_the_two_operations_are_not(additions, operations):
    assert first_addition(additions).function == second_addition(additions).function
    assert one_operation(operations, "add").function != one_operation(operations, "mul").function


def test_a_task_of_one_operation_has_its_examples_alone(operations):
    adding, multiplying = one_operation(operations, "add"), one_operation(operations, "mul")
    assert all(bool((inputs[:, 40] == 1).all()) for inputs, _ in adding.train)
    assert len(adding.train.examples) + len(multiplying.train.examples) == 500
    ideal = _one_hot(multiplying.test.examples.targets)
    assert multiplying.correct(ideal, multiplying.test.examples.targets).all()


def test_the_same_rng_gives_the_same_examples():
    first, second = (double_addition(3, n_train=9, n_test=4) for _ in range(2))
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert torch.equal(first.test.targets, second.test.targets)
    assert not torch.equal(first.train.inputs, double_addition(4, n_train=9, n_test=4).train.inputs)


def test_impossible_data_is_refused(operations):
    with pytest.raises(TaskError, match="n_train=0"):
        double_addition(0, n_train=0)
    with pytest.raises(TaskError, match="add, mul; got 'sub'"):
        one_operation(operations, "sub")
    single = add_or_multiply(0, n_train=1, n_test=1)
    with pytest.raises(TaskError, match="none of the 1 examples asks for"):
        [one_operation(single, operation) for operation in ("add", "mul")]


def test_the_task_of_both_operations_has_all_examples(operations):
    task = both_operations(operations)
    assert task.correct(_one_hot(operations.test.targets), operations.test.targets).all()
    assert len(task.train.examples) == 500


@pytest.mark.slow
def test_a_small_network_learns_to_add_and_to_multiply_some():
    data = add_or_multiply(0, n_train=20_000, n_test=2000)
    model = mlp([42, 200, 200, 20], rng=0)
    before = evaluate(model, both_operations(data)).accuracy
    fit(model, both_operations(data), n_steps=1200, rng=0, learning_rate=3e-3)
    assert before < 0.05
    assert evaluate(model, one_operation(data, "add")).accuracy > 0.9


def test_pair_by_pair_shows_one_pair_at_a_time():
    network = mlp([8, 5, 6], rng=0)
    pairs = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    answers = PairByPair(network)(pairs)
    first_alone, second_alone = pairs.clone(), pairs.clone()
    first_alone[:, 4:], second_alone[:, :4] = 0, 0
    assert torch.allclose(answers[:, :3], network(first_alone)[:, :3], atol=1e-6)
    assert torch.allclose(answers[:, 3:], network(second_alone)[:, 3:], atol=1e-6)
