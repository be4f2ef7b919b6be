"""Do intervals and p-values about masks hold what they say? Learned masks on small networks: tables of the docs.

    python benchmarks/mask_statistics.py                    # both tables, three CPU minutes
    python benchmarks/mask_statistics.py --only coverage    # how often the interval of p_specialize holds its value
    python benchmarks/mask_statistics.py --only reuse       # p of p_reuse where no task has to do with another

*Coverage*: on each trained network two tasks get 24 masks each; the value is p_specialize of all of them. Then 2, 3 or
4 masks a task at a time are taken for all there is: how often does their 95 % interval hold that value?

*Reuse*: on each random network seven tasks, drawn independently of each other, are masked with two seeds. Two of them
are said to be of one function; they are not, so the p of p_reuse should be uniform: at most .05 in one case of twenty.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modscope.masks.learner import MaskLearner, learn_masks
from modscope.masks.mask import MaskSet
from modscope.masks.overlap import overlap
from modscope.masks.sharing import sharing_score
from modscope.models.mlp import mlp
from modscope.randomness import numbered
from modscope.tasks.task import Task

N_INPUTS, WIDTH, BATCH = 12, 32, 128
N_SEEDS = 24
GROUPS = (2, 3, 4)
N_TASKS = 7
NEEDED = (range(8), range(4, 12))  # inputs of the two tasks of the coverage networks


def batches_of(inputs: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    return list(zip(inputs.split(BATCH), targets.split(BATCH), strict=True))


def two_way(name: str, output: int, batches: list[tuple[Tensor, Tensor]], function: str) -> Task:
    """Which of two classes, told by outputs `output` and `output` + 1."""
    return Task(
        name,
        batches,
        batches[:4],
        loss=lambda outputs, targets: F.cross_entropy(outputs[:, output : output + 2], targets),
        correct=lambda outputs, targets: outputs[:, output : output + 2].argmax(1) == targets,
        function=function,
    )


def random_inputs(seed: int, n_batches: int = 20) -> Tensor:
    rng = numbered(seed, "inputs")
    return torch.from_numpy(rng.standard_normal((n_batches * BATCH, N_INPUTS))).float()


@dataclass(frozen=True)
class Coverage:
    """On one network: p_specialize of all seeds, and value and interval of each group of seeds, by group size."""

    value: float
    groups: dict[int, list[tuple[float, float, float]]]


def coverage_on(seed: int) -> tuple[Coverage, float]:
    """The coverage experiment on one network, and the CPU seconds that it took."""
    torch.set_num_threads(1)
    start = time.process_time()
    inputs = random_inputs(seed)
    tasks = [
        two_way(f"task {k}", 2 * k, batches_of(inputs, (inputs[:, list(needed)].sum(1) > 0).long()), f"function {k}")
        for k, needed in enumerate(NEEDED)
    ]
    model = trained(mlp([N_INPUTS, WIDTH, 4], rng=seed), tasks)
    masks = learn_masks(model, tasks, MaskLearner(n_steps=80), n_seeds=N_SEEDS, rng=seed)

    def score(chosen: Sequence[int]) -> tuple[float, float, float]:
        some = MaskSet({task.name: [masks.seeds(task.name)[i] for i in chosen] for task in tasks})
        found = sharing_score(overlap(some, n_unit_samples=0), tasks, {}, numbered(seed, "splits"), reuse=False)
        if found.value is None or found.interval is None:
            raise RuntimeError(f"no p_specialize on network {seed}: {found.reason}")
        return found.value, *found.interval

    groups = {n: [score(range(i, i + n)) for i in range(0, N_SEEDS - n + 1, n)] for n in GROUPS}
    return Coverage(score(range(N_SEEDS))[0], groups), time.process_time() - start


def trained(model: nn.Module, tasks: Sequence[Task]) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(8):
        for several in zip(*(task.batches("train") for task in tasks), strict=True):
            optimizer.zero_grad()
            outputs = model(several[0][0])
            torch.stack(
                [task.loss(outputs, batch[1]) for task, batch in zip(tasks, several, strict=True)]
            ).sum().backward()
            optimizer.step()
    return model.eval()


@dataclass(frozen=True)
class Reuse:
    """On one random network: for some pairs of tasks the p by weights, by units and among tasks."""

    p_values: list[tuple[float, float, float]]
    accuracy: float  # of the masks
    density: float


def reuse_on(seed: int, penalty: float) -> tuple[Reuse, float]:
    """The reuse experiment on one network, and the CPU seconds that it took."""
    torch.set_num_threads(1)
    start = time.process_time()
    inputs = random_inputs(seed)
    directions = torch.from_numpy(numbered(seed, "directions").standard_normal((N_TASKS, N_INPUTS))).float()
    labels = (inputs @ directions.T > 0).long()
    tasks = [two_way(f"task {k}", 2 * k, batches_of(inputs, labels[:, k]), f"function {k}") for k in range(N_TASKS)]
    model = mlp([N_INPUTS, WIDTH, WIDTH, 2 * N_TASKS], rng=seed).eval()
    masks = learn_masks(model, tasks, MaskLearner(n_steps=80, penalty=penalty), n_seeds=2, rng=seed)
    shared = overlap(masks, rng=seed)
    p_values = []
    for first in range(0, N_TASKS - 1, 2):  # pairs that have no task in common
        named = [
            replace(task, function="one" if k in (first, first + 1) else task.name) for k, task in enumerate(tasks)
        ]
        found = sharing_score(shared, named, {}, numbered(seed, "ways"), reuse=True)
        by_weights = shared.pair(tasks[first].name, tasks[first + 1].name).total.p_above
        if found.p_value is not None and found.p_among_tasks is not None:
            p_values.append((by_weights, found.p_value, found.p_among_tasks))
    learned = [mask for task in tasks for mask in masks.seeds(task.name)]
    accuracy = float(np.mean([mask.details["thresholded_accuracy"] for mask in learned]))
    return Reuse(p_values, accuracy, float(np.mean([mask.density for mask in learned]))), time.process_time() - start


def print_coverage(found: Sequence[Coverage], seconds: float) -> None:
    values = np.array([each.value for each in found])
    print(f"\np_specialize of {N_SEEDS} seeds on {len(found)} networks: {values.min():.2f} to {values.max():.2f}\n")
    print("| seeds a task | intervals | hold the value | mean width | mean error of the value |\n|---|---|---|---|---|")
    for n in GROUPS:
        rows = np.array([(each.value, *row) for each in found for row in each.groups[n]])
        truth, value, low, high = rows.T
        held = (low <= truth) & (truth <= high)
        width, error = (high - low).mean(), np.abs(value - truth).mean()
        print(f"| {n} | {len(rows)} | {held.mean():.3f} | {width:.2f} | {error:.3f} |")
    print(f"\n{seconds:.0f} CPU seconds", flush=True)


def print_reuse(found: Sequence[Reuse], seconds: float) -> None:
    from scipy.stats import kstest

    p_values = np.array([row for each in found for row in each.p_values])
    accuracy, density = (np.mean([getattr(each, name) for each in found]) for name in ("accuracy", "density"))
    print(f"\n{len(p_values)} pairs of independent tasks on {len(found)} random networks; masks: ", end="")
    print(f"accuracy {accuracy:.2f}, density {density:.2f}\n")
    print("| p | at most .05 | at most .1 | mean | uniform (Kolmogorov-Smirnov p) |\n|---|---|---|---|---|")
    steps = (0.0, 1 / 100, 1 / 21)
    for name, column, step in zip(("weights", "units", "among tasks"), p_values.T, steps, strict=True):
        spread = column - step * numbered(0, "steps").random(len(column))  # from steps to a continuous uniform
        rates = " | ".join(f"{(column <= level).mean():.2f}" for level in (0.05, 0.1))
        print(f"| {name} | {rates} | {column.mean():.2f} | {kstest(spread, 'uniform').pvalue:.1g} |")
    print(f"\n{seconds:.0f} CPU seconds", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("coverage", "reuse"))
    parser.add_argument("--networks", type=int, default=None, help="of each kind (8 and 20)")
    parser.add_argument("--penalty", type=float, default=0.004, help="of the masks on random networks")
    parser.add_argument("--jobs", type=int, default=1, help="networks at once")
    options = parser.parse_args()
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as executor:
        if options.only != "reuse":
            coverage = list(executor.map(coverage_on, range(options.networks or 8)))
            print_coverage([each for each, _ in coverage], sum(seconds for _, seconds in coverage))
        if options.only != "coverage":
            work = partial(reuse_on, penalty=options.penalty)
            reuse = list(executor.map(work, range(options.networks or 20)))
            print_reuse([each for each, _ in reuse], sum(seconds for _, seconds in reuse))


if __name__ == "__main__":
    main()
