"""Steps of training and of learning masks that benchmarks measure, and what they cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modscope.masks.adam import adam
from modscope.masks.learner import MaskLearner
from modscope.masks.objective import Objective
from modscope.masks.optimise import Training

Step = Callable[[], None]


def plain_step(model: nn.Module, inputs: Any, targets: Tensor, loss: Callable[[Any, Tensor], Tensor]) -> Step:
    """A training step of the weights, with PyTorch's fused Adam."""
    optimizer = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        loss(model(inputs), targets).backward()
        optimizer.step()

    return step


def mask_step(objective: Objective, learner: MaskLearner) -> Step:
    """A step of learning a mask, as the learner takes it, with logits that keep 88 % of the weights."""
    logits = [tensor.requires_grad_() for tensor in objective.layout.initial(2.0, objective.generator.device)]
    training = Training(objective, learner._settings(1e-3, 2.0), logits)
    optimizer, batch = adam(logits), next(objective.task.batches("train"))
    return lambda: training.step(optimizer, batch, 0, 0.0, is_soft=True)


def cpu_medians(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    """CPU seconds of each step, the median of some rounds in which all take turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(rounds + 1):
        for name, step in steps.items():
            start = time.process_time()
            step()
            if repeat:  # the first round allocates
                times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}
