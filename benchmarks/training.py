"""How fast is training, beside a plain loop, and the clusterability gradient, beside a loop over weights?"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from modscope.data.digits import two_digits
from modscope.data.examples import DataSet
from modscope.models.mlp import mlp
from modscope.tasks.images import both_digits
from modscope.training.clusterability import ClusterabilityPenalty
from modscope.training.fit import fit
from modscope.training.pruning import MagnitudePruning

N_STEPS, BATCH = 1000, 128
SIZES = [128, 128, 128, 128, 20]
SMALL, LARGE = [49, 64, 64, 64, 10], [784, 256, 256, 256, 256, 10]  # the papers' networks


def cpu_seconds(work: Callable[[], object], *, repeats: int = 3) -> float:
    """The least CPU time of several calls."""
    seconds = []
    for _ in range(repeats):
        before = time.process_time()
        work()
        seconds.append(time.process_time() - before)
    return min(seconds)


def loaded(data: DataSet) -> None:
    """The usual loop: a DataLoader, AdamW as it comes."""
    model = mlp(SIZES, rng=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1.0)
    examples = TensorDataset(data.train.inputs, data.train.targets)
    step = 0
    while step < N_STEPS:
        for inputs, targets in DataLoader(examples, BATCH, shuffle=True):
            optimizer.zero_grad()
            sides = model(inputs).reshape(-1, 2, 10)
            loss = F.cross_entropy(sides[:, 0], targets[:, 0]) + F.cross_entropy(sides[:, 1], targets[:, 1])
            torch.autograd.backward(loss)
            optimizer.step()
            step += 1
            if step == N_STEPS:
                return


def looped_gradient(weights: list[np.ndarray], n_eigenvalues: int = 3) -> None:
    """The eigenvalues of the whole Laplacian, and the slope of every weight, one weight at a time."""
    start = np.cumsum([0, weights[0].shape[1], *(len(weight) for weight in weights)])
    adjacency = np.zeros((start[-1], start[-1]))
    for layer, weight in enumerate(weights):
        adjacency[start[layer + 1] : start[layer + 2], start[layer] : start[layer + 1]] = np.abs(weight)
    adjacency += adjacency.T
    root = np.sqrt(adjacency.sum(axis=1))
    values, vectors = np.linalg.eigh(np.eye(len(root)) - adjacency / root / root[:, None])
    scaled, values = vectors[:, 1 : n_eigenvalues + 1] / root[:, None], values[1 : n_eigenvalues + 1]
    for layer, weight in enumerate(weights):
        for row, column in np.ndindex(*weight.shape):
            m, n = scaled[start[layer + 1] + row], scaled[start[layer] + column]
            weight[row, column] = np.sign(weight[row, column]) * ((1 - values) * (m**2 + n**2) - 2 * m * n).sum()


def looped(sizes: list[int]) -> Callable[[], object]:
    """One evaluation of `looped_gradient`."""
    layers = [layer for layer in mlp(sizes, rng=0) if isinstance(layer, torch.nn.Linear)]
    return lambda: looped_gradient([layer.weight.detach().double().numpy().copy() for layer in layers])


def penalised(sizes: list[int]) -> Callable[[], object]:
    """One evaluation of the penalty and its gradient."""
    model, penalty = mlp(sizes, rng=0), ClusterabilityPenalty()
    return lambda: torch.autograd.backward(penalty(model))


def main() -> None:
    """Print one line per way, with its ratio to the baseline above it."""
    torch.set_num_threads(1)
    data = two_digits(0)
    task = both_digits(data)
    fit(mlp(SIZES, rng=0), task, n_steps=20, rng=0)  # the first step imports half of torch
    pruning = MagnitudePruning(0.1, begin=250, end=625)
    rows = {
        f"{N_STEPS} steps, DataLoader loop (baseline)": cpu_seconds(lambda: loaded(data)),
        f"{N_STEPS} steps, fit": cpu_seconds(lambda: fit(mlp(SIZES, rng=0), task, n_steps=N_STEPS, rng=0)),
        f"{N_STEPS} steps, fit with pruning": cpu_seconds(
            lambda: fit(mlp(SIZES, rng=0), task, n_steps=N_STEPS, rng=0, pruning=pruning)
        ),
        "gradient 49-64x3-10, loop over weights (baseline)": cpu_seconds(looped(SMALL)),
        "gradient 49-64x3-10, closed form": cpu_seconds(penalised(SMALL), repeats=20),
        "gradient 784-256x4-10, loop over weights (baseline)": cpu_seconds(looped(LARGE), repeats=1),
        "gradient 784-256x4-10, closed form": cpu_seconds(penalised(LARGE), repeats=20),
    }
    print(f"{'':52} {'CPU s':>8} {'ratio':>7}")
    baseline = 1.0
    for name, value in rows.items():
        baseline = value if name.endswith("(baseline)") else baseline
        print(f"{name:52} {value:8.4f} {value / baseline:7.3f}")


if __name__ == "__main__":
    main()
