"""The same two tasks on one network, masked weight by weight, row by row, unit by unit: the table of docs/masks.md.

    python benchmarks/granularities.py            # about two minutes of CPU time

Every mask stands beside random weights of the same number per tensor and size: accuracy lost on the own and on the
other task when they are removed.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from modscope.data.digits import two_digits
from modscope.masks.learner import MaskLearner, learn_masks
from modscope.masks.specialization import specialization
from modscope.models.mlp import mlp
from modscope.tasks.images import both_digits, left_digit, right_digit
from modscope.training.fit import fit
from modscope.wiring.trace import read_wiring

GRANULARITIES = ("weight", "row", "column", "unit")


def main() -> None:
    """Print one line per granularity."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = two_digits(options.seed)
    model = mlp([128] * 4 + [20], rng=options.seed)
    fit(model, both_digits(data), n_steps=4000, rng=options.seed, weight_decay=1.0)
    wiring = read_wiring(model, data.test.inputs[:8])
    tasks = [left_digit(data, batch_size=128), right_digit(data, batch_size=128)]
    titles = ("mask of", "own task", "other task", "without it: own", "other", "kept", "dissociation (random)",
              "p_specialize", "CPU s")  # fmt: skip
    print("|", " | ".join(titles), "|")
    print("|", " | ".join(["---"] * len(titles)), "|")
    for granularity in GRANULARITIES:
        start = time.process_time()
        masks = learn_masks(model, tasks, MaskLearner(granularity=granularity), n_seeds=2, wiring=wiring)
        seconds = (time.process_time() - start) / 4
        found = specialization(model, masks, tasks)
        own, other = np.eye(2, dtype=bool), ~np.eye(2, dtype=bool)
        pair = found.dissociations[0]
        score = "none" if found.p_specialize is None else f"{found.p_specialize:.2f}"
        print(
            f"| {granularity} | {found.mask_accuracy[own].mean():.3f} | {found.mask_accuracy[other].mean():.3f} "
            f"| {found.inverse_accuracy[own].mean():.3f} | {found.inverse_accuracy[other].mean():.3f} "
            f"| {found.density.mean():.3f} | {pair.observed:.2f} ({np.mean(pair.null_samples):.2f}) | {score} "
            f"| {seconds:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
