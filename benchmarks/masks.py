"""What does a step of a mask cost, beside a plain training step of the same model? In CPU time.

    python benchmarks/masks.py                 # every row: a few minutes on one core
    python benchmarks/masks.py --rows fnn800   # one of them
    python benchmarks/masks.py --gpu           # GPT-2 small, where there is a GPU

Three kinds of step alternate in one process, on one thread, with 4 mask samples (8 for permuted MNIST): a plain
training step (Adam on the weights), a naive Gumbel-sigmoid step (the paper's formula written in autograd, one forward
pass per chunk, all weights frozen) and ours. Medians; networks are untrained, which no cost depends on.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from steps import Step, cpu_medians, mask_step, plain_step
from torch import Tensor, nn
from torch.func import functional_call

from modscope.masks.layout import layout_of
from modscope.masks.learner import MaskLearner
from modscope.masks.objective import prepared
from modscope.masks.parameters import chosen_parameters
from modscope.tasks.task import Task

Row = tuple[Callable[[], nn.Module], Callable[[], Any], int, int, float, str]


def fnn(width: int, depth: int = 4, n_inputs: int = 42, n_outputs: int = 20) -> nn.Module:
    sizes = [n_inputs, *[width] * depth, n_outputs]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class LastStep(nn.Module):
    """A two-layer LSTM that answers after the last step, as the double-addition network does."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.output = nn.LSTM(80, 256, 2), nn.Linear(256, 40)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.lstm(x)[0][-1])


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(64, 128, 3, padding=1), nn.Dropout(0.25), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(128, 256, 3, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(256, 10),
    )  # fmt: skip


class Transformer(nn.Module):
    """The SCAN transformer's size: width 100, 4 heads, 3 + 3 layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 100)
        self.transformer = nn.Transformer(100, 4, 3, 3, 200, dropout=0.1, batch_first=True)
        self.output = nn.Linear(100, 20)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.transformer(self.embedding(x), self.embedding(x)))[:, -1]


ROWS: dict[str, Row] = {  # model, inputs, batch axis, samples, target, what the official program needs
    "fnn800": (lambda: fnn(800), lambda: torch.rand(128, 42), 0, 4, 1.6, "6.7-7.4"),
    "fnn2000": (lambda: fnn(2000), lambda: torch.rand(128, 42), 0, 4, 2.2, "17.6-21.2"),
    "lstm": (LastStep, lambda: torch.rand(6, 128, 80), 1, 4, 1.3, "5.9-6.5"),
    "cnn": (cnn, lambda: torch.rand(128, 3, 32, 32), 0, 4, 0.85, "1.3-1.4"),
    "transformer": (Transformer, lambda: torch.randint(20, (128, 20)), 0, 4, 0.70, ".79"),
    "mnist": (lambda: fnn(800, 2, 784, 10), lambda: torch.rand(128, 784), 0, 8, 2.2, "16"),
}


def task_of(inputs: Tensor, batch_dim: int) -> Task:
    targets = torch.randint(10, (inputs.shape[batch_dim],))
    batches = [(inputs, targets)]
    return Task("bench", batches, batches, loss=F.cross_entropy, correct=lambda o, t: o.argmax(1) == t, batch_dim=batch_dim)  # fmt: skip  # noqa: E501


def naive_step(model: nn.Module, inputs: Tensor, targets: Tensor, batch_dim: int, n_samples: int) -> Step:
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    logits = {
        name: torch.full_like(weight, 2.0).requires_grad_() for name, weight in weights.items() if weight.ndim > 1
    }
    optimizer = torch.optim.Adam(logits.values(), lr=1e-2)

    def masked(weight: Tensor, logit: Tensor) -> Tensor:
        u = torch.rand(2, *logit.shape)
        y = torch.sigmoid(logit - torch.log(torch.log(u[1] + 1e-10) / torch.log(u[0] + 1e-10) + 1e-10))
        return weight * ((y > 0.5).float() - y.detach() + y)

    def step() -> None:
        optimizer.zero_grad()
        outputs = [
            functional_call(
                model, {**weights, **{name: masked(weights[name], logits[name]) for name in logits}}, (chunk,)
            )
            for chunk in inputs.chunk(n_samples, dim=batch_dim)
        ]
        loss = F.cross_entropy(torch.cat(outputs), targets)
        (loss + 1e-4 / len(targets) * sum(logit.sum() for logit in logits.values())).backward()
        optimizer.step()

    return step


def our_step(model: nn.Module, task: Task, n_samples: int, learner: MaskLearner) -> Step:
    chosen = chosen_parameters(model, "weights")
    layout = layout_of("weight", chosen, None)
    generator = torch.Generator(next(model.parameters()).device).manual_seed(0)
    return mask_step(prepared(model, task, layout, chosen, n_samples, generator), learner)


def measure(name: str, rounds: int) -> str:
    build, make_inputs, batch_dim, n_samples, target, official = ROWS[name]
    torch.manual_seed(0)
    task = task_of(make_inputs(), batch_dim)
    inputs, targets = next(task.batches("train"))
    steps = {
        "plain": plain_step(build().train(), inputs, targets, F.cross_entropy),
        "naive": naive_step(build().eval(), inputs, targets, batch_dim, n_samples),
        "hard": our_step(build().eval(), task, n_samples, MaskLearner(estimator="rao_blackwell")),
        "soft": our_step(build().eval(), task, n_samples, MaskLearner()),
    }
    medians = cpu_medians(steps, rounds)
    ratio = {key: medians[key] / medians["plain"] for key in steps}
    return (
        f"{name:12} {medians['plain'] * 1e3:8.1f} ms {ratio['naive']:8.2f} {ratio['hard']:8.2f} {ratio['soft']:8.2f} "
        f"{target:8.2f} {official:>10}"
    )


def gpu_row() -> str:
    """GPT-2 small in bfloat16, weight masks, batch 8 x 512: a mask step over a plain step, in time and peak memory."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokens = torch.randint(50257, (8, 512), device="cuda")

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs.logits[:, :-1].flatten(0, 1).float(), targets[:, 1:].flatten())

    def correct(outputs: Any, targets: Tensor) -> Tensor:
        return (outputs.logits[:, :-1].argmax(-1) == targets[:, 1:]).all(dim=1)

    def measured(step: Callable[[], None]) -> tuple[float, float]:
        torch.cuda.reset_peak_memory_stats()
        times = []
        for _ in range(8):
            torch.cuda.synchronize()
            start = time.perf_counter()
            step()
            torch.cuda.synchronize()
            times.append(time.perf_counter() - start)
        return statistics.median(times[2:]), torch.cuda.max_memory_allocated() / 2**30

    model = GPT2LMHeadModel(GPT2Config()).to("cuda", torch.bfloat16)
    batches = [({"input_ids": tokens}, tokens)]
    task = Task("bench", batches, batches, loss=loss, correct=correct)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def plain() -> None:
        optimizer.zero_grad()
        loss(model(input_ids=tokens), tokens).backward()
        optimizer.step()

    plain_seconds, plain_memory = measured(plain)
    optimizer.zero_grad()
    optimizer.state.clear()
    seconds, memory = measured(our_step(model.eval(), task, 4, MaskLearner(estimator="rao_blackwell")))
    return (
        f"gpt2 small, bf16: plain {plain_seconds * 1e3:.1f} ms and {plain_memory:.1f} GB, "
        f"mask step {seconds / plain_seconds:.2f} times the time and {memory / plain_memory:.2f} times the memory"
    )


def main() -> None:
    """Print one line per network; and one for a GPU, where there is one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=ROWS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--gpu", action="store_true", help="only GPT-2 small on a GPU")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.gpu:
        print("ratio of a mask step to a plain training step (CPU time, one thread)")
        titles = f"{'naive':>8} {'hard':>8} {'default':>8} {'target':>8} {'official':>10}"
        print(f"{'network':12} {'plain':>11} {titles}")
        for name in options.rows:
            print(measure(name, options.rounds), flush=True)
    if torch.cuda.is_available():
        print(gpu_row())
    elif options.gpu:
        print("there is no GPU here: GPT-2 small was not measured")


if __name__ == "__main__":
    main()
