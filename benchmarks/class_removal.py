"""Masks learned without one class: does that class fall, and little else? The table of docs/masks.md.

    python benchmarks/class_removal.py lenet_mnist --classes 0 4 8
    python benchmarks/class_removal.py resnet20_cifar10 --classes 3 --images 5000 --steps 150

The reference mask is learned on all classes; every other mask on all classes but one, with the last layer's mask taken
from the reference (Csordás et al. 2021). Data and networks are read from the folder MODSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from modscope.data.cifar10 import cifar10_test
from modscope.data.examples import Examples
from modscope.data.idx import mnist
from modscope.masks.applied import applied
from modscope.masks.learner import MaskLearner
from modscope.masks.mask import Mask
from modscope.models.published import load
from modscope.tasks.task import Task, evaluate


def task_of(name: str, train: Examples, test: Examples) -> Task:
    def correct(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.argmax(1) == targets

    batches = train.batches(128), test.batches(500)
    return Task(name, *batches, loss=F.cross_entropy, correct=correct, class_of=lambda targets: targets)


def main() -> None:
    """Print one line per removed class."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="?", default="lenet_mnist")
    parser.add_argument("--classes", nargs="*", type=int, default=[0, 4, 8])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--penalty", type=float, default=3e-3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    network = load(options.network)
    images = cifar10_test() if "cifar10" in options.network else mnist().test
    half = min(options.images, len(images.inputs)) // 2
    inputs, targets = network.prepare(images.inputs[: 2 * half]), images.targets[: 2 * half].long()
    train, test = Examples(inputs[:half], targets[:half]), Examples(inputs[half:], targets[half:])
    learner = MaskLearner(n_steps=options.steps, penalty=options.penalty)
    everything = task_of("all classes", train, test)
    reference = learner(network.model, everything)
    with applied(network.model, reference):
        before = evaluate(network.model, everything).class_accuracy
    assert before is not None
    print(f"{options.network}: reference mask keeps {reference.density:.3f}, accuracy {np.mean(before):.3f}")
    print("| without class | that class falls by | largest fall of another | kept | CPU s |\n|---|---|---|---|---|")
    for removed in options.classes:
        start = time.process_time()
        mask = learner(network.model, task_of(f"without {removed}", train[train.targets != removed], test))
        last = mask.names[-1]
        mixed = Mask({name: reference[name] if name == last else mask[name] for name in mask.names})
        with applied(network.model, mixed):
            after = evaluate(network.model, everything).class_accuracy
        assert after is not None
        fall = before - after
        others = np.delete(fall, removed)
        seconds = time.process_time() - start
        print(
            f"| {removed} | {fall[removed]:.3f} | {others.max():.3f} | {mixed.density:.3f} | {seconds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
