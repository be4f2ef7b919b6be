"""Masks learned without one class: does that class fall, and little else? A table and a picture of docs/masks.md.

    python benchmarks/class_removal.py lenet_mnist --picture docs/images/class-removal-lenet.png
    python benchmarks/class_removal.py resnet20_cifar10 --picture docs/images/class-removal-resnet.png

The reference mask is learned on all classes, every other mask on all classes but one. As in Csordás et al. 2021 the
last layer's mask is then taken from the reference, so that a class can fall only because what it is told by is gone;
"own last layer" is the mask as it was learned. Masks are learned on the first half of the test images and judged on the
second. Data and networks are read from the folder MODSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

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
from modscope.models.published import PublishedNetwork, load
from modscope.tasks.task import Task, evaluate

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True)
class Setting:
    """How the masks of one network are learned: everything else is `MaskLearner`'s default."""

    class_names: Sequence[str]
    batch_size: int
    learner: MaskLearner


SETTINGS = {
    # three times the default price: at the default, what digits share with each other still tells of an 8
    "lenet_mnist": Setting([str(digit) for digit in range(10)], 128, MaskLearner(penalty=1.3e-2)),
    # twice the default price, for the same reason; half the batch and half the steps, to take ten minutes and not forty
    "resnet20_cifar10": Setting(CIFAR10, 64, MaskLearner(penalty=5e-4, n_steps=150)),
}


@dataclass(frozen=True)
class Removal:
    """What a mask learned without one class does. Arrays hold the accuracy of each class."""

    removed: int
    paper: np.ndarray  # last layer's mask from the reference
    own: np.ndarray
    inverse: np.ndarray  # everything but the mask
    density: float
    seconds: float


@dataclass(frozen=True)
class Experiment:
    """One network, its images, and how its masks are learned."""

    name: str

    @property
    def setting(self) -> Setting:
        return SETTINGS[self.name]

    def network(self) -> PublishedNetwork:
        return load(self.name)

    def task(self, removed: int | None = None) -> Task:
        """All classes, or all but one to learn from; always all to judge by."""
        images = cifar10_test() if "cifar10" in self.name else mnist().test
        inputs, targets = self.network().prepare(images.inputs), images.targets.long()
        half = len(inputs) // 2
        train = Examples(inputs[:half], targets[:half])
        if removed is not None:
            train = train[train.targets != removed]
        return Task(
            "all classes" if removed is None else f"without {removed}",
            train.batches(self.setting.batch_size),
            Examples(inputs[half:], targets[half:]).batches(500),
            loss=F.cross_entropy,
            correct=lambda outputs, targets: outputs.argmax(1) == targets,
            class_of=_itself,
        )

    def reference(self) -> Mask:
        """The mask of all classes."""
        return self.setting.learner(self.network().model, self.task())

    def accuracies(self, mask: Mask | None) -> np.ndarray:
        """The accuracy of each class."""
        model = self.network().model
        kept = mask or Mask({name: torch.ones_like(p, dtype=torch.bool) for name, p in model.named_parameters()})
        with applied(model, kept):
            found = evaluate(model, self.task()).class_accuracy
        assert found is not None
        return found

    def without(self, removed: int, reference: Mask) -> Removal:
        """The mask of all classes but one, and what it does."""
        start = time.process_time()
        mask = self.setting.learner(self.network().model, self.task(removed))
        seconds = time.process_time() - start
        last = mask.names[-1]
        mixed = Mask({name: reference[name] if name == last else mask[name] for name in mask.names})
        paper, own, inverse = (self.accuracies(each) for each in (mixed, mask, ~mixed))
        return Removal(removed, paper, own, inverse, mixed.density, seconds)


def main() -> None:
    """Print one line per removed class, and draw the matrix of all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("network", nargs="?", default="lenet_mnist", choices=SETTINGS)
    parser.add_argument("--classes", nargs="*", type=int, default=list(range(10)))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    experiment = Experiment(options.network)
    start = time.process_time()
    reference = experiment.reference()
    seconds = time.process_time() - start
    whole, before = experiment.accuracies(None), experiment.accuracies(reference)
    inverse = experiment.accuracies(~reference)
    print(
        f"{options.network}: accuracy {whole.mean():.3f}; its mask of all classes keeps {reference.density:.3f} at "
        f"accuracy {before.mean():.3f}, all else {inverse.mean():.3f}; {seconds:.1f} CPU s"
    )
    print("| without class | it falls by | others, mean | others, most | own last layer: it | others, mean | ", end="")
    print("all but the mask: accuracy | kept | CPU s |\n|---|---|---|---|---|---|---|---|---|", flush=True)
    work = partial(experiment.without, reference=reference)
    removals = []
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), torch.set_num_threads, (1,)) as executor:
        for removal in executor.map(work, options.classes):
            removals.append(removal)
            print(row(experiment.setting.class_names, removal, before), flush=True)
            if options.picture:  # as far as it has come
                shown = np.array([each.paper - before for each in removals])
                draw(shown, options.classes[: len(removals)], experiment.setting.class_names, options.picture)
    changes = np.array([removal.paper - before for removal in removals])
    own = -np.diagonal(changes[:, options.classes])
    others = np.array([-np.delete(change, r).mean() for change, r in zip(changes, options.classes, strict=True)])
    print(f"mean fall of the removed class {own.mean():.3f}, of the others {others.mean():.3f}")


def row(class_names: Sequence[str], removal: Removal, before: np.ndarray) -> str:
    """One line of the table: falls are differences to the reference mask."""
    fall, own_fall = before - removal.paper, before - removal.own
    others, own_others = np.delete(fall, removal.removed), np.delete(own_fall, removal.removed)
    return (
        f"| {class_names[removal.removed]} | {fall[removal.removed]:.3f} | {others.mean():.3f} | {others.max():.3f} "
        f"| {own_fall[removal.removed]:.3f} | {own_others.mean():.3f} | {removal.inverse.mean():.3f} "
        f"| {removal.density:.3f} | {removal.seconds:.1f} |"
    )


def draw(changes: np.ndarray, classes: Sequence[int], class_names: Sequence[str], path: Path) -> None:
    """A matrix: rows are removed classes, columns how the accuracy of each class changes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 5), layout="constrained")
    image = axes.imshow(changes, cmap="RdBu", vmin=-1, vmax=1)
    for (i, j), change in np.ndenumerate(changes):
        colour = "white" if abs(change) > 0.6 else "black"
        axes.text(j, i, f"{change:+.2f}".replace("0.", "."), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(class_names)), class_names, rotation=45, ha="right")
    axes.set_yticks(range(len(classes)), [class_names[each] for each in classes])
    axes.set_xlabel("accuracy of this class changes by")
    axes.set_ylabel("mask learned without")
    figure.colorbar(image, shrink=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _itself(targets: Tensor) -> Tensor:
    return targets


if __name__ == "__main__":
    main()
