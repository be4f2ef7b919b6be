"""What does a whole mask cost, from the trained network to an equally accurate and equally small mask? In CPU time.

    python benchmarks/mask_job.py     # about four minutes on one core

The network adds or multiplies two numbers (256 x 2 units). The baseline is a naive loop of the paper's method, written
out below: straight-through Gumbel-sigmoid, 4 samples, rate .01, 12,000 steps. Ours is the default learner; its penalty
is searched, up and down, until the mask is at least as accurate and at most as large. The search is printed, and the
CPU seconds of its last run are compared. Accuracies are on the test examples, in the search too.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch import Tensor, nn
from torch.func import functional_call

from modscope.masks.applied import applied
from modscope.masks.learner import MaskLearner
from modscope.masks.mask import Mask
from modscope.models.mlp import mlp
from modscope.tasks.arithmetic import OPERATIONS, add_or_multiply, both_operations, one_operation
from modscope.tasks.task import Task, evaluate
from modscope.training.fit import fit

N_SAMPLES, RATE, PENALTY = 4, 1e-2, 1e-4
STEPS, N_TRIES = (300, 600, 1200), 7  # of our run; penalties that are tried for each


def naive_mask(model: nn.Module, task: Task, n_steps: int) -> Mask:
    """The paper's method as one would write it down, without modscope."""
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    logits = {name: torch.full_like(weight, 2.0) for name, weight in weights.items() if weight.ndim > 1}
    optimizer = torch.optim.Adam([logit.requires_grad_() for logit in logits.values()], lr=RATE)

    def masked(name: str) -> Tensor:
        u = torch.rand(2, *logits[name].shape)
        y = torch.sigmoid(logits[name] - torch.log(torch.log(u[1] + 1e-10) / torch.log(u[0] + 1e-10) + 1e-10))
        return weights[name] * ((y > 0.5).float() - y.detach() + y)

    step = 0
    while step < n_steps:
        for inputs, targets in task.batches("train"):
            outputs = [
                functional_call(model, {**weights, **{name: masked(name) for name in logits}}, (chunk,))
                for chunk in inputs.chunk(N_SAMPLES)
            ]
            loss = task.loss(torch.cat(outputs), targets)
            optimizer.zero_grad()
            (loss + PENALTY / len(targets) * sum(logit.sum() for logit in logits.values())).backward()
            optimizer.step()
            step += 1
            if step == n_steps:
                break
    return Mask({name: logit.detach() > 0 for name, logit in logits.items()})


def scored(model: nn.Module, task: Task, mask: Mask) -> tuple[float, float]:
    """Accuracy on test examples, and the share of weights that are kept."""
    with applied(model, mask):
        return evaluate(model, task).accuracy, mask.density


def as_good(model: nn.Module, task: Task, accuracy: float, density: float) -> tuple[Mask, float, bool]:
    """Our mask that is as accurate and as small, the CPU seconds of the run that made it, and whether there is one.

    The penalty is halved or doubled, then bisected, and every run is printed; where no penalty will do, the run is made
    longer. Without success, the last mask.
    """
    for n_steps in STEPS:
        low, high, penalty = 0.0, math.inf, None  # penalties with too large, and with too inaccurate masks
        for _ in range(N_TRIES):
            start = time.process_time()
            mask = MaskLearner(penalty=penalty, n_steps=n_steps)(model, task)
            seconds = time.process_time() - start
            ours, size = scored(model, task, mask)
            used = mask.details["learner"]["penalty"]
            print(
                f"  tried       {seconds:7.1f} CPU s, accuracy {ours:.4f}, density {size:.3f}: "
                f"{n_steps} steps, penalty {used:.3g}",
                flush=True,
            )
            is_small, is_accurate = size <= density, ours >= accuracy
            if is_small == is_accurate:
                break  # found, or too large and too inaccurate at once: a longer run
            low, high = (used, high) if is_accurate else (low, used)
            penalty = low * 2 if math.isinf(high) else high / 2 if low == 0 else math.sqrt(low * high)
        if is_small and is_accurate:
            return mask, seconds, True
    return mask, seconds, False


def main() -> None:
    """Print the baseline, the search and the mask that it found, for each task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12_000, help="of the baseline")
    parser.add_argument("--only", nargs="*", default=list(OPERATIONS), choices=list(OPERATIONS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = add_or_multiply(0, n_train=100_000)
    model = mlp([42, 256, 256, 20], rng=0)
    fit(model, both_operations(data), n_steps=8000, rng=0, batch_size=256)
    warm_up = one_operation(data, "add", batch_size=128)
    MaskLearner(n_steps=20)(model, warm_up)  # loads the compiled loops
    for operation in options.only:
        task = one_operation(data, operation, batch_size=128)
        start = time.process_time()
        mask = naive_mask(model, task, options.steps)
        naive_seconds = time.process_time() - start
        accuracy, density = scored(model, task, mask)
        print(f"{operation}: whole network {evaluate(model, task).accuracy:.3f}")
        print(f"  naive loop  {naive_seconds:7.1f} CPU s, accuracy {accuracy:.4f}, density {density:.3f}", flush=True)
        mask, seconds, is_as_good = as_good(model, task, accuracy, density)
        ours, size = scored(model, task, mask)
        print(
            f"  ours        {seconds:7.1f} CPU s, accuracy {ours:.4f}, density {size:.3f}: "
            f"{naive_seconds / seconds:.0f} times less, {'as good' if is_as_good else 'NOT AS GOOD'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
