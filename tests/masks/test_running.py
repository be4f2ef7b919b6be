from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from modscope.errors import TaskError
from modscope.masks.applied import applied
from modscope.masks.attention import QuickAttention
from modscope.masks.gradient_factors import conditional_factors
from modscope.masks.layout import LogitPerWeight
from modscope.masks.learner import MaskLearner
from modscope.masks.running import Running, quickest
from modscope.masks.sampling import ESTIMATORS
from modscope.tasks.task import Task, evaluate


def any_task() -> Task:
    return Task("any", [1], [1], loss=F.cross_entropy, correct=lambda outputs, targets: outputs.argmax(1) == targets)


def frozen(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


class Attending(nn.Module):
    """Attention of some inputs to themselves or to others, with every kind of mask."""

    def __init__(self, way: str, *, batch_first: bool, bias: bool = True) -> None:
        super().__init__()
        self.attention, self.way = nn.MultiheadAttention(12, 3, bias=bias, batch_first=batch_first), way
        self.batch_first = batch_first

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        length = x.shape[1 if self.batch_first else 0]
        causal = torch.ones(length, length).triu(1).bool()
        options: dict[str, dict[str, Any]] = {
            "itself": {},
            "causal": {"attn_mask": causal, "is_causal": True},
            "scores": {"attn_mask": torch.linspace(-1, 1, length * length).view(length, length)},
            "scores of heads": {"attn_mask": torch.linspace(-1, 1, 12 * length**2).view(12, length, length)},
            "padding": {"key_padding_mask": torch.arange(length).expand(4, -1) > torch.arange(4)[:, None]},
            "both": {"attn_mask": causal, "key_padding_mask": torch.arange(length).expand(4, -1) > 2},
        }
        if self.way == "others":
            return self.attention(x, y, y, need_weights=False)[0]
        if self.way == "different values":
            return self.attention(x, y, y * 2, need_weights=False)[0]
        if self.way == "weights":
            return self.attention(x, x, x)[1]
        return self.attention(x, x, x, need_weights=False, **options[self.way])[0]


WAYS = ["itself", "causal", "scores", "scores of heads", "padding", "both", "others", "different values", "weights"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("batch_first", "bias"), [(True, True), (False, True), (True, False)])
def test_quick_attention_is_pytorch_s_attention_with_every_mask(way: str, batch_first: bool, bias: bool) -> None:
    torch.manual_seed(0)
    model = Attending(way, batch_first=batch_first, bias=bias).eval()
    x, y = torch.randn(4, 5, 12), torch.randn(4, 7, 12)
    pair = (x, y) if batch_first else (x.transpose(0, 1), y.transpose(0, 1))
    pull = torch.randn(model(*pair).shape)
    found = []
    for running in (Running(model), Running(model, quick_attention=True)):
        parameters = {name: tensor.requires_grad_() for name, tensor in frozen(model).items()}
        inputs = tuple(tensor.detach().requires_grad_() for tensor in pair)
        outputs = running(parameters, inputs, any_task())
        wanted = (*parameters.values(), *inputs)
        gradients = torch.autograd.grad((outputs * pull).sum(), wanted, materialize_grads=True, allow_unused=True)
        found.append([outputs, *gradients])
    for usual, quick in zip(*found, strict=True):
        assert usual.shape == quick.shape
        assert torch.allclose(usual, quick, atol=1e-5)


def test_attention_with_dropout_or_without_an_axis_of_examples_is_left_to_pytorch() -> None:
    torch.manual_seed(0)
    model = nn.MultiheadAttention(12, 3, dropout=0.5).train()
    x = torch.randn(5, 4, 12)
    with QuickAttention():
        torch.manual_seed(1)
        found = model(x, x, x, need_weights=False)[0]
        single = model.eval()(x[:, 0], x[:, 0], x[:, 0], need_weights=False)[0]
    torch.manual_seed(1)
    assert torch.equal(model.train()(x, x, x, need_weights=False)[0], found)
    assert torch.equal(model.eval()(x[:, 0], x[:, 0], x[:, 0], need_weights=False)[0], single)


def test_an_attention_mask_that_pytorch_refuses_is_still_refused() -> None:
    model, x = nn.MultiheadAttention(12, 3), torch.randn(5, 4, 12)
    with QuickAttention(), pytest.raises(RuntimeError, match="is_causal"):
        model(x, x, x, need_weights=False, is_causal=True)


def wide_cnn(last: nn.Module) -> nn.Module:
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 20, 3, groups=1), nn.ReLU(), last]
    return nn.Sequential(*layers, nn.Linear(20 * 4, 5))


class Viewed(nn.Module):
    """Asks for the numbers in the usual order of memory, which `view` needs."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, 20 * 4)


class LooksAtMemory(nn.Module):
    """Gives something else where the numbers lie otherwise."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * (1 if x.is_contiguous() else 2)


def test_channels_lie_last_only_where_the_model_gives_the_same_outputs_then() -> None:
    x = torch.randn(6, 3, 10, 10)
    for last, is_taken in ((nn.Flatten(), True), (Viewed(), False), (LooksAtMemory(), False)):
        model = wide_cnn(last)
        assert quickest(model, frozen(model), x, any_task()) == Running(model, channels_last=is_taken)
    few = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))
    assert quickest(few, frozen(few), x, any_task()) == Running(few)


def test_the_quickest_way_through_a_transformer_is_found_by_its_layers() -> None:
    model = nn.TransformerEncoderLayer(12, 3, 8, batch_first=True)
    model.eval()
    assert quickest(model, frozen(model), torch.randn(4, 5, 12), any_task()) == Running(model, quick_attention=True)


class Tied(nn.Module):
    """One embedding read under two names, a layer used twice, a recurrent layer, and a parameter that may fail."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.output = nn.Embedding(7, 6), nn.Linear(6, 7, bias=False)
        self.output.weight = self.embedding.weight
        self.layer, self.lstm = nn.Linear(6, 6), nn.LSTM(6, 6, batch_first=True)
        self.again = self.layer

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.shape[1] == 1:
            raise KeyboardInterrupt
        hidden = self.again(torch.relu(self.layer(self.embedding(tokens))))
        return self.output(self.lstm(hidden)[0][:, -1])


def test_tied_shared_and_recurrent_layers_run_under_other_parameters_as_functional_call_runs_them() -> None:
    torch.manual_seed(0)
    model, tokens = Tied(), torch.randint(7, (4, 5))
    before = {name: (id(parameter), parameter.clone()) for name, parameter in model.named_parameters()}
    usual = model(tokens)
    other = {name: 2 * tensor for name, tensor in frozen(model).items()}
    # on a copy: functional_call does not give a layer that is held under two names its own parameters back
    wanted = functional_call(copy.deepcopy(model), other, (tokens,))
    assert torch.equal(Running(model)(other, tokens, any_task()), wanted)
    with pytest.raises(TaskError, match="running the model under a mask"):
        Running(model)(other, tokens + 100, any_task())
    with pytest.raises(KeyboardInterrupt):
        Running(model)(other, tokens[:, :1], any_task())
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == {
        name: found for name, (found, _) in before.items()
    }
    assert all(torch.equal(parameter, before[name][1]) for name, parameter in model.named_parameters())
    assert torch.equal(model(tokens), usual)


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_copies_of_kernels_that_lie_otherwise_are_copies_of_the_same_weights(name: str) -> None:
    draws = torch.Generator().manual_seed(0)
    kernel = torch.randn(6, 5, 3, 2, generator=draws)
    pulls, start = torch.randn(4, *kernel.shape, generator=draws), 2 * torch.randn(kernel.shape, generator=draws)
    logits = start.clone().requires_grad_()
    weights = Running(nn.Identity(), channels_last=True).ordered({"kernel": kernel})
    copies = LogitPerWeight({"kernel": kernel.shape}).masked(
        [logits], weights, ESTIMATORS[name], 4, torch.Generator().manual_seed(1), 0.1
    )
    found = torch.stack([copy["kernel"] for copy in copies])
    assert all(copy["kernel"].is_contiguous(memory_format=torch.channels_last) for copy in copies)
    shares = found / kernel
    assert ((shares > -1e-6) & (shares < 1 + 1e-6)).all()
    assert torch.corrcoef(torch.stack([shares.mean(dim=0).flatten(), torch.sigmoid(start).flatten()]))[0, 1] > 0.6
    (gradient,) = torch.autograd.grad((found * pulls).sum(), logits)
    if name == "rao_blackwell":
        of_kept, of_removed = conditional_factors(start)
        expected = (kernel * pulls * torch.where(found != 0, of_kept, of_removed)).sum(dim=0)
        assert torch.allclose(gradient.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("last", [nn.Flatten, Viewed])
@pytest.mark.parametrize("granularity", ["weight", "unit"])
def test_masks_are_learned_on_any_way_through_the_model_which_stays_as_it_was(
    last: type[nn.Module], granularity: str
) -> None:
    torch.manual_seed(0)
    model, inputs = wide_cnn(last()), torch.randn(64, 3, 10, 10)
    with torch.no_grad():
        model[6].bias.zero_()
        model[6].weight.mul_(50)[:, 12:] = 0  # only three of twenty kernels are read
        model[6].weight.sub_(model[6].weight.mean(dim=0))  # no answer is given more often than others
        targets = model(inputs).argmax(1)
    batches = [(inputs, targets)]
    task = Task("own answers", batches, batches, loss=F.cross_entropy, correct=lambda o, t: o.argmax(1) == t)
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in model.state_dict().items()}
    mask = MaskLearner(granularity=granularity, n_steps=100, penalty=0.01)(model, task)
    assert mask["3.weight"][3:].float().mean() < 0.1 < 0.5 < mask["3.weight"][:3].float().mean()
    with applied(model, mask):
        assert evaluate(model, task).accuracy > 0.9
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor.stride() == before[name][1]
