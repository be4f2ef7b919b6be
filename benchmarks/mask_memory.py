"""How much memory does a step of a mask take, beside a naive loop of the paper's formula and a plain training step?

    python benchmarks/mask_memory.py                 # every network of masks.py
    python benchmarks/mask_memory.py --rows fnn800

Peak resident memory of three steps, in a process of its own for each number, less what the process held after its
imports and after its compiled loops were loaded. Everything else counts: the network, logits, optimiser and samples.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys

import torch
import torch.nn.functional as F
from steps import Step, plain_step

from masks import ROWS, naive_step, our_step, task_of
from modscope.masks.learner import MaskLearner
from modscope.masks.sampling import rao_blackwell

WAYS = ("plain", "naive", "hard", "default")


def peak() -> float:
    """Megabytes that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def step_of(name: str, way: str) -> Step:
    build, make_inputs, batch_dim, n_samples, _, _ = ROWS[name]
    task = task_of(make_inputs(), batch_dim)
    inputs, targets = next(task.batches("train"))
    if way == "plain":
        return plain_step(build().train(), inputs, targets, F.cross_entropy)
    if way == "naive":
        return naive_step(build().eval(), inputs, targets, batch_dim, n_samples)
    learner = MaskLearner(estimator="rao_blackwell") if way == "hard" else MaskLearner()
    return our_step(build().eval(), task, n_samples, learner)


def measure(name: str, way: str) -> float:
    """Megabytes of three steps, in this process."""
    torch.set_num_threads(1)
    logits = torch.zeros(4, requires_grad=True)
    for n_copies in {1, ROWS[name][3]}:  # loads the compiled loops
        sum(rao_blackwell(logits, torch.ones(4), n_copies, torch.Generator(), 0.0)).sum().backward()
    torch.optim.Adam([logits], fused=True).step()
    before = peak()
    step = step_of(name, way)
    for _ in range(3):
        step()
    return peak() - before


def main() -> None:
    """Print one line per network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=ROWS)
    parser.add_argument("--one", nargs=2, metavar=("ROW", "WAY"), help="print one number, as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return
    print("peak memory of a step, MB\n" + f"{'network':12}" + "".join(f"{way:>10}" for way in WAYS))
    for name in options.rows:
        found = []
        for way in WAYS:
            command = [sys.executable, __file__, "--one", name, way]
            found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(f"{name:12}" + "".join(f"{megabytes:10.0f}" for megabytes in found), flush=True)


if __name__ == "__main__":
    main()
