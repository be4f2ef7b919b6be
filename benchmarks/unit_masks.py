"""What does a step of a unit mask cost, beside a plain training step of the same model? One thread, CPU time.

    python benchmarks/unit_masks.py               # one to two minutes
    python benchmarks/unit_masks.py --rows mlp

Four kinds of step alternate in one process, 4 mask samples each: a plain training step (Adam on the weights), a step
that masks copies of the weights (one run of the model per sample), and ours, for one logit per unit and one per row.
Medians; goal: at most 1.1 plain steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from steps import Step, cpu_medians, mask_step, plain_step
from torch import Tensor, nn
from torch.func import functional_call

from modscope.masks.layout import LogitPerGroup, layout_of
from modscope.masks.learner import MaskLearner
from modscope.masks.objective import Objective, prepared
from modscope.masks.parameters import chosen_parameters
from modscope.masks.sampling import rao_blackwell
from modscope.models.mlp import mlp
from modscope.models.resnet import CifarResNet
from modscope.tasks.task import Task
from modscope.wiring.trace import read_wiring

GOAL, N_SAMPLES = 1.1, 4


def small_gpt2() -> nn.Module:
    """GPT-2 of 4 blocks of width 128, with its embedding tied to its output."""
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {"n_embd": 128, "n_layer": 4, "n_head": 4, "n_positions": 64, "vocab_size": 1000}
    return GPT2LMHeadModel(GPT2Config(**size, bos_token_id=0, eos_token_id=0))


ROWS: dict[str, tuple[str, Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "demo": ("MLP 128 x 3 (demo)", lambda: mlp([128] * 4 + [20], rng=0), lambda: torch.rand(128, 128)),
    "mlp": ("MLP 800 x 4", lambda: mlp([42, *[800] * 4, 20], rng=0), lambda: torch.rand(128, 42)),
    "resnet20": ("ResNet-20", lambda: CifarResNet(20), lambda: torch.rand(64, 3, 32, 32)),
    "gpt2": ("GPT-2, 4 x 128", small_gpt2, lambda: torch.randint(1000, (16, 64))),
}


def loss_of(outputs: Any, targets: Tensor) -> Tensor:
    if isinstance(outputs, Tensor):
        return F.cross_entropy(outputs, targets)
    return F.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())


def loss_with_copies(objective: Objective, logits: list[Tensor], batch: Any) -> tuple[Tensor, int]:
    """The loss with a masked copy of the weights for each sample, which runs on its own part of the batch."""
    layout, (inputs, targets) = objective.layout, batch
    assert isinstance(layout, LogitPerGroup)
    samples = layout.kept(logits, rao_blackwell, N_SAMPLES, objective.generator, 0.0)
    losses = []
    for kept, part, wanted in zip(samples, inputs.chunk(N_SAMPLES), targets.chunk(N_SAMPLES), strict=True):
        copy = {name: layout.masked_weight(name, weight, kept) for name, weight in objective.weights.items()}
        losses.append(loss_of(functional_call(objective.model, {**objective.others, **copy}, (part,)), wanted))
    return torch.stack(losses).mean(), len(inputs)


def copying_step(objective: Objective) -> Step:
    """A step on copies of the weights, with PyTorch's Adam and the penalty in the loss."""
    logits = [tensor.requires_grad_() for tensor in objective.layout.initial(2.0, torch.device("cpu"))]
    optimizer = torch.optim.Adam(logits, lr=0.2, fused=True)
    batch = next(objective.task.batches("train"))

    def step() -> None:
        optimizer.zero_grad()
        loss, count = loss_with_copies(objective, logits, batch)
        (loss + 0.1 / count * logits[0].sum()).backward()
        optimizer.step()

    return step


def objective_of(model: nn.Module, task: Task, granularity: str) -> Objective:
    inputs, _ = next(task.batches("train"))
    chosen = chosen_parameters(model, "weights")
    layout = layout_of(granularity, chosen, read_wiring(model, inputs[:2]))
    names = layout.spread(layout.initial(0.0, torch.device("cpu")))
    masked = {name: chosen[name] for name in names}
    return prepared(model, task, layout, masked, N_SAMPLES, torch.Generator().manual_seed(0))


def measure(name: str, rounds: int) -> str:
    title, build, make_inputs = ROWS[name]
    torch.manual_seed(0)
    inputs = make_inputs()
    targets = torch.randint(10, (len(inputs),)) if inputs.is_floating_point() else inputs
    task = Task(name, [(inputs, targets)], [(inputs, targets)], loss=loss_of, correct=lambda outputs, _: outputs)
    units, rows = (objective_of(build().eval(), task, granularity) for granularity in ("unit", "row"))
    learner = MaskLearner(estimator="rao_blackwell")
    steps = {
        "plain": plain_step(build().train(), inputs, targets, loss_of),
        "copies": copying_step(units),
        "unit": mask_step(units, learner),
        "row": mask_step(rows, learner),
    }
    medians = cpu_medians(steps, rounds)
    ratios = " | ".join(f"{medians[kind] / medians['plain']:.2f}" for kind in ("copies", "unit", "row"))
    return f"| {title} | {medians['plain'] * 1e3:.1f} ms | {ratios} | {GOAL} |"


def main(rows: list[str] | None = None, rounds: int = 15) -> None:
    """Print one line per network."""
    torch.set_num_threads(1)
    print("| network | plain step | masked copies of the weights | unit mask | row mask | goal |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in rows or ROWS:
        print(measure(name, rounds * 10 if name == "demo" else rounds), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="*", default=None, choices=ROWS)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    main(options.rows, options.rounds)
