from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import families
from fingerprint import differences
from masks.untouched import state_of
from modscope.calling import call
from modscope.errors import MaskError, TaskError
from modscope.masks.applied import applied
from modscope.masks.cut import weights_of_units
from modscope.masks.learner import MaskLearner
from modscope.masks.mask import Mask
from modscope.masks.pairs import PairedNetwork, evaluate_on_pairs
from modscope.masks.parameters import chosen_parameters
from modscope.tasks.task import Task, evaluate
from modscope.wiring.trace import read_wiring


def outputs_on_pairs(model: nn.Module, mask: Mask, inputs: Any, other: Any) -> Any:
    with torch.no_grad(), applied(network := PairedNetwork(model), mask):
        return network(inputs, other)


def random_mask(model: nn.Module, share: float) -> Mask:
    generator = torch.Generator().manual_seed(0)
    chosen = chosen_parameters(model, "weights")
    return Mask({name: torch.rand(tensor.shape, generator=generator) < share for name, tensor in chosen.items()})


def gpt2_inputs(seed: int) -> dict[str, Tensor]:
    return {"input_ids": torch.randint(0, 11, (4, 5), generator=torch.Generator().manual_seed(seed))}


class CrossAttention(nn.Module):
    """Separate projections: keys and values have sizes of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x[..., :6], x[..., 4:])[0]


def sequences(seed: int) -> Tensor:
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(seed))


NETWORKS: dict[str, tuple[Any, Any]] = {
    "mlp": (families.mlp, lambda seed: torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))),
    "norms": (families.norm_mlp, lambda seed: torch.randn(5, 6, generator=torch.Generator().manual_seed(seed))),
    "convolutions": (
        families.lenet,
        lambda seed: torch.randn(3, 1, 28, 28, generator=torch.Generator().manual_seed(seed)),
    ),
    "gpt2": (families.gpt2, gpt2_inputs),
    "encoder": (
        lambda: nn.Sequential(nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)),
        sequences,
    ),
    "cross attention": (CrossAttention, sequences),
}


def tensor_of(outputs: Any) -> Tensor:
    return outputs if isinstance(outputs, Tensor) else outputs.logits


@pytest.mark.parametrize("name", NETWORKS)
def test_removing_nothing_gives_the_outputs_and_removing_every_weight_the_counterfactual_ones(name: str) -> None:
    torch.manual_seed(0)
    model, make = NETWORKS[name][0]().eval(), NETWORKS[name][1]
    one, other = make(1), make(2)
    with torch.no_grad():
        plain, counterfactual = (tensor_of(call(model, inputs)) for inputs in (one, other))
    nothing = tensor_of(outputs_on_pairs(model, random_mask(model, 0.0), one, other))
    everything = tensor_of(outputs_on_pairs(model, random_mask(model, 1.1), one, other))
    assert torch.allclose(everything, plain, atol=1e-5)
    assert torch.allclose(nothing, counterfactual, atol=1e-5)
    half = tensor_of(outputs_on_pairs(model, random_mask(model, 0.5), one, other))
    assert not torch.allclose(half, plain, atol=1e-3)


def test_a_removed_unit_has_its_counterfactual_value_exactly() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    one, other = torch.randn(7, 4), torch.randn(7, 4)
    wiring = read_wiring(model, one)
    hidden = next(group for group in wiring.groups if group.size == 6)
    kept = torch.ones(wiring.n_units, dtype=torch.bool).numpy()
    kept[hidden.unit_ids[:2]] = False
    with torch.no_grad():
        values = model[1](model[0](one))
        values[:, :2] = model[1](model[0](other))[:, :2]
        by_hand = model[2](values)
    found = outputs_on_pairs(model, weights_of_units(model, wiring, kept), one, other)
    assert torch.allclose(found, by_hand, atol=1e-6)


def planted() -> tuple[nn.Sequential, Task]:
    """Two classes by the sign of input 0. Units 0 and 1 carry it; unit 2 is a constant that the answer needs."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[:2, 0] = torch.tensor([2.0, -2.0])
        model[0].weight[3:, 1:] = torch.randn(3, 2)
        model[0].bias.copy_(torch.tensor([4.0, 4.0, 5.0, 0.0, 0.0, 0.0]))
        model[2].weight.zero_()
        model[2].weight[1] = torch.tensor([3.0, -3.0, 4.0, 0.01, 0.01, 0.01])
        model[2].bias.copy_(torch.tensor([0.0, -20.0]))
    inputs = torch.randn(20, 128, 3)
    batches = [(x, {"class": (x[:, 0] > 0).long(), "pair": x.flip(0)}) for x in inputs.unbind()]
    task = Task(
        "sign",
        batches,
        batches[:4],
        loss=lambda outputs, targets: F.cross_entropy(outputs, targets["class"]),
        correct=lambda outputs, targets: outputs.argmax(1) == targets["class"],
        counterfactual=lambda batch: batch[1]["pair"],
    )
    return model, task


def test_the_known_circuit_is_found_without_the_constant_that_both_inputs_share() -> None:
    model, task = planted()
    wiring = read_wiring(model, torch.zeros(2, 3))
    before = state_of(model)
    by_zero = MaskLearner(granularity="unit")(model, task, wiring=wiring)
    by_pairs = MaskLearner(granularity="unit", removed="counterfactual")(model, task, wiring=wiring)
    assert differences(before, state_of(model)) == []
    units = [mask["2.weight"].any(dim=0).tolist() for mask in (by_zero, by_pairs)]
    assert units == [[True, True, True, False, False, False], [True, True, False, False, False, False]]
    assert evaluate_on_pairs(model, by_pairs, task).accuracy > 0.98
    with applied(model, by_pairs):  # without the pairs the constant is missing
        assert evaluate(model, task).accuracy < 0.6
    assert evaluate_on_pairs(model, ~by_pairs, task).accuracy < 0.6


def test_masks_of_single_weights_are_masks_of_edges() -> None:
    model, task = planted()
    mask = MaskLearner(removed="counterfactual")(model, task)
    assert mask["0.weight"].nonzero().tolist() == [[0, 0], [1, 0]]
    assert {column for _, column in mask["2.weight"].nonzero().tolist()} == {0, 1}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_the_model_is_left_as_it_was_when_learning_on_pairs_is_broken_off(error: type[BaseException]) -> None:
    model, task = planted()
    calls: list[int] = []

    def loss(outputs: Tensor, targets: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 6:
            raise error
        return task.loss(outputs, targets)

    broken = Task("sign", task.train, task.test, loss=loss, correct=task.correct, counterfactual=task.counterfactual)
    before = state_of(model.train())
    with pytest.raises(TaskError if error is RuntimeError else error):
        MaskLearner(removed="counterfactual")(model, broken)
    assert differences(before, state_of(model)) == []


def test_what_cannot_be_paired_is_said() -> None:
    model, task = planted()
    learner = MaskLearner(removed="counterfactual", n_steps=2)
    without = Task("sign", task.train, task.test, loss=task.loss, correct=task.correct)
    with pytest.raises(TaskError, match="gives no counterfactual inputs; give it counterfactual="):
        learner(model, without)
    short = Task(
        "sign", task.train, task.test, loss=task.loss, correct=task.correct, counterfactual=lambda batch: batch[0][:5]
    )
    with pytest.raises(TaskError, match=r"must have the shapes of the inputs, \[\(128, 3\)\], got \[\(5, 3\)\]"):
        learner(model, short)
    with pytest.raises(MaskError, match="removed must be"):
        MaskLearner(removed="mean")  # type: ignore[arg-type]


def four_classes(inputs: Tensor, logits: Callable[[Any], Tensor] = lambda outputs: outputs) -> Task:
    """Classes by turns, each input paired with another of the batch."""
    batch = (inputs, torch.arange(len(inputs)) % 4)
    return Task(
        "four classes",
        [batch],
        [batch],
        loss=lambda outputs, targets: F.cross_entropy(logits(outputs), targets),
        correct=lambda outputs, targets: logits(outputs).argmax(1) == targets,
        counterfactual=lambda batch: batch[0].flip(0),
    )


def test_layers_that_hide_their_products_are_refused() -> None:
    task = four_classes(torch.randn(8, 3, 5), lambda outputs: outputs[0][:, -1])
    with pytest.raises(MaskError, match="which we cannot run on pairs"):
        MaskLearner(removed="counterfactual", n_steps=2)(nn.LSTM(5, 7, batch_first=True), task)


def test_a_unit_removed_from_attention_takes_its_counterfactual_value() -> None:
    """Values and output projection kept; a query unit that is removed makes the pair's scores, by hand."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(4, 1, batch_first=True)
    one, other = torch.randn(3, 5, 4), torch.randn(3, 5, 4)
    mask = Mask({"in_proj_weight": (torch.arange(12) != 2)[:, None].expand(12, 4).clone()})  # query unit 2

    class Attended(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.__dict__["_parameters"], self.__dict__["_modules"] = attention._parameters, attention._modules

        def forward(self, x: Tensor) -> Tensor:
            return attention(x, x, x, need_weights=False)[0]

    query, key, value = (
        F.linear(one, w, b)
        for w, b in zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
    )
    query = query.clone()
    query[..., 2] = F.linear(other, attention.in_proj_weight[2:3], attention.in_proj_bias[2:3])[..., 0]
    by_hand = attention.out_proj((query @ key.transpose(1, 2) / 2).softmax(-1) @ value)
    assert torch.allclose(outputs_on_pairs(Attended(), mask, one, other), by_hand, atol=1e-5)


def test_masks_on_pairs_are_learned_through_multi_head_attention() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(), nn.Linear(40, 4))
    task = four_classes(torch.randn(16, 5, 8))
    before = state_of(model)
    mask = MaskLearner(removed="counterfactual", n_steps=3)(model, task)
    assert differences(before, state_of(model)) == []
    assert "0.self_attn.in_proj_weight" in mask.names
    assert evaluate_on_pairs(model, mask, task).n_examples == 16


def test_networks_that_turn_the_examples_to_another_axis_are_refused() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x.transpose(0, 1)).mean(0)

    task = four_classes(torch.randn(8, 6, 5))
    with pytest.raises(MaskError, match="reads 6 rows where there are 8 pairs; examples must lie along axis 0"):
        MaskLearner(removed="counterfactual", n_steps=2)(Turned(), task)
