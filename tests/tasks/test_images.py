"""The two tasks of the two-digit network, and their sum."""

import pytest
import torch

from modscope.data.digits import two_digits
from modscope.data.examples import DataSet, Examples
from modscope.data.idx import mnist
from modscope.errors import TaskError
from modscope.models import load
from modscope.models.mlp import mlp
from modscope.tasks.images import both_digits, classification, left_digit, right_digit, without_class
from modscope.tasks.task import evaluate
from modscope.training.fit import fit
from modscope.training.pruning import MagnitudePruning


def _logits_naming(left: int, right: int) -> torch.Tensor:
    logits = torch.zeros(1, 20)
    logits[0, left] = logits[0, 10 + right] = 5.0
    return logits


@pytest.fixture
def data() -> DataSet:
    return two_digits(0, n_train=50, n_test=20)


def test_each_side_is_right_by_its_own_ten_outputs(data):
    left, right, both = left_digit(data), right_digit(data), both_digits(data)
    labels = torch.tensor([[3, 7]])
    for logits, expected in ((_logits_naming(3, 7), (1, 1, 1)), (_logits_naming(3, 3), (1, 0, 0))):
        assert tuple(int(task.correct(logits, labels)) for task in (left, right, both)) == expected


def test_the_loss_of_both_is_the_sum_and_one_side_reads_nothing_of_the_other(data):
    logits = torch.randn(8, 20, generator=torch.Generator().manual_seed(0), requires_grad=True)
    labels = data.test.targets[:8]
    left, right, both = left_digit(data), right_digit(data), both_digits(data)
    assert both.loss(logits, labels).item() == pytest.approx(
        left.loss(logits, labels).item() + right.loss(logits, labels).item()
    )
    gradient = torch.autograd.grad(left.loss(logits, labels), logits)[0]
    assert bool((gradient[:, 10:] == 0).all())
    assert bool((gradient[:, :10] != 0).all())
    by_hand = -torch.log_softmax(logits[:, 10:], dim=1)[torch.arange(8), labels[:, 1]].mean()
    assert right.loss(logits, labels).item() == pytest.approx(by_hand.item())


def test_the_sides_are_two_functions_and_their_classes_are_the_digits(data):
    left, right = left_digit(data), right_digit(data)
    assert left.function != right.function
    assert torch.equal(right.class_of(data.test.targets), data.test.targets[:, 1])


def test_an_ideal_network_is_right_on_both_sides(data):
    model = torch.nn.Identity()
    one_hot = torch.nn.functional.one_hot(data.test.targets, 10).flatten(1).float()
    ideal = DataSet(data.train, Examples(one_hot, data.test.targets))
    assert evaluate(model, left_digit(ideal)).accuracy == evaluate(model, right_digit(ideal)).accuracy == 1.0


def test_classification_counts_the_largest_output_of_encoded_pixels():
    pixels = torch.tensor([[200, 10], [0, 255], [90, 100]], dtype=torch.uint8)
    examples = Examples(pixels, torch.tensor([0, 1, 0]))
    task = classification("brighter", DataSet(examples, examples), encode=lambda stored: stored.float() / 255)
    evaluation = evaluate(torch.nn.Identity(), task)
    assert evaluation.accuracy == pytest.approx(2 / 3)
    assert evaluation.class_accuracy.tolist() == [0.5, 1.0]
    logits = pixels.double() / 255
    assert evaluation.loss == pytest.approx(
        float((logits.logsumexp(dim=1) - logits[torch.arange(3), examples.targets]).mean()), rel=1e-5
    )


def test_a_removed_class_is_gone_from_training_alone():
    examples = Examples(torch.arange(6.0), torch.tensor([0, 1, 2, 0, 1, 2]))
    data = without_class(DataSet(examples, examples), 1)
    assert data.train.inputs.tolist() == [0, 2, 3, 5]
    assert data.test.targets.tolist() == [0, 1, 2, 0, 1, 2]
    with pytest.raises(TaskError, match=r"class 7 must be one of several; the classes are \[0, 1, 2\]"):
        without_class(DataSet(examples, examples), 7)


@pytest.mark.data
def test_a_published_lenet_does_its_classification_task(data_folder):
    network, data = load("lenet_mnist", folder=data_folder), mnist(data_folder)
    evaluation = evaluate(network.model, classification("digits", data, encode=network.prepare))
    assert evaluation.accuracy == 0.9922
    assert evaluation.class_accuracy.min() > 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weight_decay", "pruning"),
    [(1.0, None), (0.3, MagnitudePruning(0.1, begin=1000, end=2500))],
    ids=["dense", "pruned"],
)
def test_a_small_network_learns_to_name_both_digits(weight_decay, pruning):
    data = two_digits(0)
    model = mlp([128, 128, 128, 128, 20], rng=0)
    fit(model, both_digits(data), n_steps=4000, rng=0, weight_decay=weight_decay, pruning=pruning)
    assert min(evaluate(model, task).accuracy for task in (left_digit(data), right_digit(data))) > 0.93
    kept = [(parameter != 0).float().mean().item() for parameter in model.parameters() if parameter.ndim == 2]
    assert kept == pytest.approx([0.1 if pruning else 1.0] * 4, abs=1e-3)
