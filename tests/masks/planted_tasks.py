"""Networks built so that a task needs exactly a known set of weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modscope.masks.mask import Mask
from modscope.tasks.task import Task

N_INPUTS, N_HIDDEN = 12, 24


def network(blocks: Sequence[Sequence[int]], *, seed: int = 0, background: float = 0.01) -> nn.Sequential:
    """One output per block: it is computed by the block's hidden units alone; all other weights are tiny.

    Every hidden unit that is in a block reads four inputs with weights of size 0.8 to 1.6.
    """
    generator = torch.Generator().manual_seed(seed)

    def sized(*shape: int) -> Tensor:
        sign = torch.randint(0, 2, shape, generator=generator) * 2.0 - 1
        return sign * (0.8 + 0.8 * torch.rand(shape, generator=generator))

    first, second = nn.Linear(N_INPUTS, N_HIDDEN), nn.Linear(N_HIDDEN, len(blocks))
    with torch.no_grad():
        for layer in (first, second):
            layer.weight.copy_(background * torch.randn(layer.weight.shape, generator=generator))
            layer.bias.zero_()
        for unit in {unit for block in blocks for unit in block}:
            chosen = torch.randperm(N_INPUTS, generator=generator)[:4]
            first.weight[unit, chosen] = sized(4)
        for output, block in enumerate(blocks):
            second.weight[output, list(block)] = sized(len(block))
    return nn.Sequential(first, nn.Tanh(), second)


def tasks(model: nn.Module, n_tasks: int, *, functions: Sequence[str] | None = None, n_batches: int = 30) -> list[Task]:
    """Task k: give output k as the whole network does, to within 0.5."""
    generator = torch.Generator().manual_seed(99)
    inputs = [torch.randn(128, N_INPUTS, generator=generator) for _ in range(n_batches)]
    with torch.no_grad():
        batches = [(x, model(x)) for x in inputs]

    def task(k: int) -> Task:
        return Task(
            f"output {k}",
            batches,
            batches[:4],
            loss=lambda outputs, targets: (outputs[:, k] - targets[:, k]).square().mean(),
            correct=lambda outputs, targets: (outputs[:, k] - targets[:, k]).abs() < 0.5,
            function=None if functions is None else functions[k],
        )

    return [task(k) for k in range(n_tasks)]


def needed(model: nn.Sequential, output: int) -> Mask:
    """The weights that output k was built from."""
    second = model[2].weight.detach().abs() > 0.5
    rows = second[output]
    first = (model[0].weight.detach().abs() > 0.5) & rows[:, None]
    own = torch.zeros_like(second)
    own[output] = rows
    return Mask({"0.weight": first, "2.weight": own})


def two_apart() -> tuple[nn.Sequential, list[Task], list[Mask]]:
    """A network of two outputs that share no unit, the task of each, and the weights that it needs."""
    model = network([range(8), range(8, 16)])
    return model, tasks(model, 2), [needed(model, k) for k in range(2)]
