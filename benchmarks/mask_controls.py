"""Do masks find what a network learned, or build it from random weights? The tables and the picture of the docs.

    python benchmarks/mask_controls.py                # about three minutes of CPU time
    python benchmarks/mask_controls.py --picture docs/images/mask-controls.png

Two-digit networks of several widths, each trained, shuffled after training, and freshly initialised. On every one a
mask for the left digit of the same size is learned. Then: how often do the rules that could decide "found" cry wolf on
networks whose weights mean nothing, and how often do they recognise a trained one?
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from modscope.data.digits import two_digits
from modscope.data.examples import DataSet
from modscope.masks.applied import applied
from modscope.masks.controls import chance_of_one_more, succeeded, with_random_weights
from modscope.masks.learner import MaskLearner
from modscope.masks.mask import Mask
from modscope.masks.removal import accuracy_without
from modscope.models.mlp import mlp
from modscope.randomness import numbered
from modscope.tasks.images import both_digits, left_digit
from modscope.tasks.task import Task, evaluate
from modscope.training.fit import fit

Rule = Callable[[float, np.ndarray, float], bool]  # own accuracy, those of the controls, without any mask
WIDTHS = (16, 32, 64, 128)
PENALTIES = (3e-3, 5e-4)  # on random weights the better of the two counts: they need a gentler start
N_CONTROLS = (3, 6)
OLD_SHARE = 0.8


@dataclass(frozen=True)
class Row:
    """What masks of one size reach on networks of one width."""

    width: int
    density: float
    whole: list[float]
    trained: list[float]
    ablated: list[float]
    nothing: float
    shuffled: list[float]
    fresh: list[float]
    cut: list[float]  # a mask as small as the shuffled network makes it, cut up to the size


def main() -> None:
    """Print both tables; draw the picture if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=3, help="trained networks per width")
    parser.add_argument("--controls", type=int, default=7, help="random networks per width and kind")
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = two_digits(0)
    task = left_digit(data, batch_size=128)
    print_header("width", "kept", "trained", "mask", "without", "shuffled, mask", "fresh, mask", "shuffled, cut up")
    rows = []
    for width in WIDTHS:
        rows.append(row_of(width, data, task, options.networks, options.controls))
        print_row(rows[-1])
    print_rules(rows, sum(len(targets) for _, targets in task.batches("test")))
    if options.picture is not None:
        draw(rows, options.picture)


def row_of(width: int, data: DataSet, task: Task, n_networks: int, n_controls: int) -> Row:
    """Masks on trained, shuffled and fresh networks of one width."""
    learner = MaskLearner()
    models = [trained(width, data, seed) for seed in range(n_networks)]
    masks = [learner(model, task, rng=seed) for seed, model in enumerate(models)]
    density = float(np.mean([mask.density for mask in masks]))
    shuffled = [with_random_weights(models[i % n_networks], rng=numbered(i, "shuffled")) for i in range(n_controls)]
    fresh = [mlp([128, width, width, 20], rng=numbered(1000 + i, "fresh")) for i in range(n_controls)]
    cut = [accuracy(model, learner(model, task).at_density(density), task) for model in shuffled[:3]]
    return Row(
        width,
        density,
        [evaluate(model, task).accuracy for model in models],
        [accuracy(model, mask, task) for model, mask in zip(models, masks, strict=True)],
        [float(accuracy_without(model, mask, [task])[0]) for model, mask in zip(models, masks, strict=True)],
        float(np.mean([evaluate(model, task).accuracy for model in shuffled])),
        [best_accuracy(model, task, density, i) for i, model in enumerate(shuffled)],
        [best_accuracy(model, task, density, i) for i, model in enumerate(fresh)],
        cut,
    )


def trained(width: int, data: DataSet, seed: int) -> nn.Module:
    """A network that names both digits."""
    model = mlp([128, width, width, 20], rng=numbered(seed, "initial weights"))
    fit(model, both_digits(data), n_steps=1500, rng=numbered(seed, "training"), weight_decay=1.0)
    return model


def accuracy(model: nn.Module, mask: Mask, task: Task) -> float:
    """Accuracy under a mask."""
    with applied(model, mask):
        return evaluate(model, task).accuracy


def best_accuracy(model: nn.Module, task: Task, density: float, seed: int) -> float:
    """The best that a mask of this size reaches."""
    learners = [MaskLearner(penalty=penalty, density=density) for penalty in PENALTIES]
    return max(accuracy(model, learner(model, task, rng=seed), task) for learner in learners)


def print_header(*titles: str) -> None:
    """Two lines of a table."""
    print("|", " | ".join(titles), "|")
    print("|", " | ".join(["---"] * len(titles)), "|", flush=True)


def print_row(row: Row) -> None:
    """One width."""
    groups = (row.whole, row.trained, row.ablated, row.shuffled, row.fresh, row.cut)
    cells = [f"{np.mean(group):.2f} ± {np.std(group, ddof=1):.2f}" for group in groups]
    print(f"| {row.width} | {row.density:.3f} |", " | ".join(cells), "|", flush=True)


def print_rules(rows: list[Row], n_examples: int) -> None:
    """How often each rule says "found" where nothing was learned, and where something was."""
    print()
    print_header("rule", "random networks", *(f"trained, width {row.width}" for row in rows))
    share = rates(rows, 1, lambda own, others, nothing: bool(others.mean() - nothing <= OLD_SHARE * (own - nothing)))
    print_rates(f"one control, its gain at most {OLD_SHARE}", share)
    for n in (n for n in N_CONTROLS if n < len(rows[0].shuffled)):  # one of them is the subject
        every = rates(rows, n, lambda own, others, _: chance_of_one_more(others, own, n_examples) <= 0.05)
        print_rates(f"{n} controls, failed ones too, p <= .05", every)
        test = rates(rows, n, lambda own, others, nothing: p_of(own, others, nothing, n_examples) <= 0.05)
        print_rates(f"{n} controls, p_built <= .05", test)


def p_of(own: float, others: np.ndarray, nothing: float, n_examples: int) -> float:
    """The p_built of `mask_controls`."""
    return chance_of_one_more(others[succeeded(others, nothing)], own, n_examples)


def rates(rows: list[Row], n_controls: int, says_found: Rule) -> tuple[float, list[float]]:
    """Share of "found": over all random networks as the subject, and over trained ones, width by width."""
    rng = np.random.default_rng(0)
    false, true = [], []
    for row in rows:
        for kind in (row.shuffled, row.fresh):
            for subject, own in enumerate(kind):
                others = np.delete(kind, subject)
                draws = [rng.choice(others, n_controls, replace=False) for _ in range(20)]
                false.append(np.mean([says_found(own, draw, row.nothing) for draw in draws]))
        draws = [rng.choice(row.shuffled, n_controls, replace=False) for _ in range(20)]
        trials = itertools.product(row.trained, draws)
        true.append(float(np.mean([says_found(own, others, row.nothing) for own, others in trials])))
    return float(np.mean(false)), true


def print_rates(rule: str, found: tuple[float, list[float]]) -> None:
    """One rule."""
    print(f"| {rule} | {found[0]:.3f} |", " | ".join(f"{rate:.2f}" for rate in found[1]), "|", flush=True)


def draw(rows: list[Row], path: Path) -> None:
    """Accuracy of masks of one size against width, on trained and on random weights."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    widths = [row.width for row in rows]
    lines = {
        "mask on the trained network": ("trained", "C0"),
        "mask on its shuffled weights": ("shuffled", "C1"),
        "mask on fresh random weights": ("fresh", "C2"),
        "trained network without the mask": ("ablated", "0.5"),
    }
    for label, (field, color) in lines.items():
        values = [getattr(row, field) for row in rows]
        axes.errorbar(
            widths, [np.mean(v) for v in values], [np.std(v, ddof=1) for v in values], label=label, color=color
        )
    axes.set(xscale="log", xlabel="width of the hidden layers", ylabel="accuracy, left digit", ylim=(0, 1))
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.minorticks_off()
    figure.legend(fontsize="small", loc="outside upper center", ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
