"""How do I add a task? Data that can be read again, a loss, and what counts as correct."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import modscope as ms

generator = torch.Generator().manual_seed(0)
inputs = torch.randn(400, 6, generator=generator)
is_positive = (inputs[:, :3].sum(dim=1) > 0).long()


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean over the examples of the batch."""
    return F.cross_entropy(outputs, targets)


def correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """One bool per example."""
    return outputs.argmax(dim=1) == targets


task = ms.Task(
    "sign of a sum",
    train=[(inputs[:300], is_positive[:300])],  # a list of batches; a DataLoader does as well
    test=[(inputs[300:], is_positive[300:])],
    loss=loss,
    correct=correct,
    class_of=lambda targets: targets,  # accuracy per class, too
    function="sign",  # tasks of one function are pairs for reuse, all others for specialisation
)

model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 2))
evaluation = ms.evaluate(model, task)
print(f"{evaluation.accuracy:.0%} of {evaluation.n_examples} examples before training")

mask = ms.MaskLearner(n_steps=100)(model, task, rng=0)
with ms.applied(model, mask):
    print(f"{ms.evaluate(model, task).accuracy:.0%} with the {mask.density:.0%} of the weights that the mask keeps")
