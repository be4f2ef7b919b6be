"""Networks whose modules are known: two that have nothing to do with each other, side by side in one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from modscope.partition.partition import Partition
from modscope.tasks.task import Task
from modscope.wiring.trace import read_wiring
from modscope.wiring.wiring import Wiring

N_CLASSES, N_COPIES = 3, 8
LEFT, RIGHT = 0, 1


def side_by_side() -> nn.Sequential:
    """Outputs the left inputs on the left and the right ones on the right; hidden layers hold eight copies of each.

    A copy reads all copies in the layer before, so that random lesions hurt little.
    """
    copies = torch.eye(N_CLASSES).repeat(N_COPIES, 1)  # (copies, inputs)
    halves = (copies, copies @ copies.T / N_COPIES, copies.T / N_COPIES)
    layers = [_linear(torch.block_diag(half, half)) for half in halves]
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight.data.copy_(weight)
    return layer


def sides_of(wiring: Wiring) -> Partition:
    """Every unit's own side: the first half of each group is left."""
    labels = np.concatenate([np.repeat([LEFT, RIGHT], group.size // 2) for group in wiring.groups])
    return Partition(labels)


def largest_input_tasks(n_examples: int = 300, batch_size: int = 100) -> tuple[Task, Task]:
    """Name the largest input of the left half, and of the right half."""
    inputs = torch.rand(n_examples, 2 * N_CLASSES, generator=torch.Generator().manual_seed(0))
    batches = [(part, part) for part in inputs.split(batch_size)]
    return _task("left", slice(0, N_CLASSES), batches), _task("right", slice(N_CLASSES, None), batches)


def _task(name: str, side: slice, batches: list[tuple[Tensor, Tensor]]) -> Task:
    return Task(
        name,
        batches,
        batches,
        loss=lambda outputs, inputs: nn.functional.cross_entropy(outputs[:, side], inputs[:, side].argmax(1)),
        correct=lambda outputs, inputs: outputs[:, side].argmax(1) == inputs[:, side].argmax(1),
        function=f"largest {name}",
    )


def planted() -> tuple[nn.Sequential, Wiring, Partition]:
    """The network, its wiring and its true clusters."""
    model = side_by_side()
    wiring = read_wiring(model, torch.rand(2, 2 * N_CLASSES))
    return model, wiring, sides_of(wiring)
