"""What does a lesion cost? The papers' way beside ours, in CPU seconds of one thread, in one process.

    python benchmarks/lesions.py               # a sample of the lesions: about two minutes on one core
    python benchmarks/lesions.py --whole       # all 1,008 lesions of the perceptron

Protocol of Filan et al.: 12 clusters x 4 hidden layers x (1 + 20 random sets) = 1,008 lesions of 10,000 images on the
784-256x4-10 perceptron. Naive, as their program does it: the units' incoming weights and biases are set to zero, and
the whole network is run. Ours: the recorded forward pass is run again from the first change on. Networks and images are
random, which no cost depends on; predictions are compared (a unit that says nothing is the same either way).
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from modscope.jobs.executors import one_thread
from modscope.lesions.engine import LesionEngine
from modscope.tasks.task import Task
from modscope.wiring.trace import read_wiring
from modscope.wiring.wiring import Wiring

N_CLUSTERS, N_RANDOM = 12, 20


def perceptron() -> tuple[nn.Module, Tensor, int]:
    """The MLP of the papers, 10,000 images, and the batch size."""
    widths = [784, 256, 256, 256, 256, 10]
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers[:-1]), torch.rand(10_000, 784), 1000


def vgg13() -> tuple[nn.Module, Tensor, int]:
    """The CIFAR-10 VGG of the papers, 128 images."""
    plan = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]
    layers: list[nn.Module] = []
    channels = 3
    for width in plan:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()] if width else [nn.MaxPool2d(2)]
        channels = width or channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10)), torch.rand(128, 3, 32, 32), 128


def lesions_of(wiring: Wiring, n_lesions: int, rng: np.random.Generator) -> list[np.ndarray]:
    """A twelfth of the units of each hidden group in turn."""
    hidden = [group.unit_ids for group in wiring.groups if group.kind == "hidden"]
    lesions = []
    for index in range(n_lesions):
        units = hidden[index % len(hidden)]
        lesion = np.zeros(wiring.n_units, dtype=bool)
        lesion[rng.choice(units, max(1, len(units) // N_CLUSTERS), replace=False)] = True
        lesions.append(lesion)
    return lesions


def naive(model: nn.Module, wiring: Wiring, task: Task, lesion: np.ndarray) -> float:
    """Accuracy with the units' incoming weights and biases set to zero, by a full forward pass."""
    named = dict(model.named_parameters())
    silenced = np.flatnonzero(lesion)
    group = wiring.groups[wiring.group_of[silenced[0]]]
    rows = torch.from_numpy(silenced - group.unit_ids[0])
    written = next(c.layer for c in wiring.connections if np.isin(c.targets, silenced).any())
    saved = {name: named[f"{written}.{name}"].detach().clone() for name in ("weight", "bias")}
    with torch.no_grad():
        for name in saved:
            named[f"{written}.{name}"][rows] = 0
        correct = torch.cat([task.correct(model(inputs), targets) for inputs, targets in task.test])
        for name, value in saved.items():
            named[f"{written}.{name}"].copy_(value)
    return float(correct.double().mean())


def measured(work: Callable[[], object]) -> tuple[float, object]:
    """CPU seconds, and the result."""
    began = time.process_time()
    result = work()
    return time.process_time() - began, result


def row(name: str, build: Callable[[], tuple[nn.Module, Tensor, int]], n_lesions: int, n_naive: int) -> None:
    """Measure one network and print its line."""
    torch.manual_seed(0)
    model, images, batch_size = build()
    model.eval()
    with torch.no_grad():
        labels = model(images[:2000]).argmax(1) if len(images) > 2000 else model(images).argmax(1)
        labels = labels.repeat(-(-len(images) // len(labels)))[: len(images)]
    batches = list(zip(images.split(batch_size), labels.split(batch_size), strict=True))
    task = Task("labels", batches, batches, loss=nn.functional.cross_entropy, correct=lambda o, t: o.argmax(1) == t)
    wiring = read_wiring(model, images[:1])
    lesions = lesions_of(wiring, n_lesions, np.random.default_rng(0))
    slow, wanted = measured(lambda: [naive(model, wiring, task, lesion) for lesion in lesions[:n_naive]])
    setup, engine = measured(lambda: LesionEngine(model, wiring, [task]))
    fast, scores = measured(lambda: engine.scores(lesions))
    difference = np.abs(scores[:n_naive, 0] - np.array(wanted)).max()
    slow_each, fast_each = slow / n_naive, fast / n_lesions
    n_whole = N_CLUSTERS * sum(group.kind == "hidden" for group in wiring.groups) * (1 + N_RANDOM)
    print(
        f"{name:24} {1e3 * slow_each:9.1f} {1e3 * fast_each:9.1f} {slow_each / fast_each:7.2f} "
        f"{n_whole * slow_each:9.0f} {setup + n_whole * fast_each:9.0f} {difference:12.2g}"
    )


def main() -> None:
    """Print one line per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--whole", action="store_true", help="all lesions of the perceptron, not a sample")
    whole = parser.parse_args().whole
    print(f"{'':24} {'ms naive':>9} {'ms ours':>9} {'ratio':>7} {'all naive':>9} {'all ours':>9} {'difference':>12}")
    with one_thread():
        row("MLP 784-256x4-10", perceptron, 1008 if whole else 256, 128 if whole else 32)
        row("VGG-13, 128 images", vgg13, 26, 13)


if __name__ == "__main__":
    main()
