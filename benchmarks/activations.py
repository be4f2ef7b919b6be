"""How fast are graphs of activations, and how much memory do they take, beside scipy's and numpy's correlations?

python benchmarks/activations.py             small tables, and 5,000 examples of 10,000 units: about a minute
python benchmarks/activations.py --growth    also 10,000 to 100,000 units on 1,000 examples: some minutes more

CPU seconds in one thread, of which the baseline gets the same values in the same process. Each row is a process of its
own, for the sake of its peak memory (the baseline's is not in it). Where there is a GPU, the model is put on it too.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from modscope.graph.activations import activation_graph
from modscope.graph.correlations import correlation_blocks
from modscope.graph.unit_graph import UnitGraph
from modscope.wiring.trace import read_wiring

torch.set_num_threads(1)
threadpool_limits(1)  # a second thread of numpy would wait, and waiting counts as CPU time
SMALL = {
    "spearman": ("scipy.stats.spearmanr", 2000, 5000),
    "pearson": ("numpy.corrcoef", 2000, 5000),
    "kendall": ("scipy.stats.kendalltau", 60, 1000),
}


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and the result."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    began = time.process_time()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.process_time() - began, result


def peak_megabytes() -> float:
    """Largest memory of this process so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def values_of(n_units: int, n_examples: int) -> np.ndarray:
    """As behind a ReLU: half of them zero."""
    rng = np.random.default_rng(0)
    return np.maximum(rng.standard_normal((n_units, n_examples), dtype=np.float32), 0)


def baseline(correlation: str, values: np.ndarray) -> np.ndarray:
    """Squared correlations of all pairs of rows."""
    if correlation == "spearman":
        return np.square(scipy.stats.spearmanr(values, axis=1).statistic)
    if correlation == "pearson":
        return np.square(np.corrcoef(values))
    taus = np.eye(len(values))
    for i, j in itertools.combinations(range(len(values)), 2):
        taus[i, j] = taus[j, i] = scipy.stats.kendalltau(values[i], values[j]).statistic ** 2
    return taus


def matrices(correlation: str) -> dict[str, Any]:
    """Values that are there already: all pairs of one group, against the baseline."""
    name, n_units, n_examples = SMALL[correlation]
    values = values_of(n_units, n_examples)
    group = np.zeros(n_units, dtype=np.int64)
    ours, blocks = seconds(lambda: correlation_blocks(np.arange(n_units), values, group, ["all"], correlation))
    theirs, wanted = seconds(lambda: baseline(correlation, values))
    difference = float(np.abs(blocks[0].sizes - np.triu(wanted, 1)).max())
    return {"baseline": name, "ours": ours, "theirs": theirs, "difference": difference}


def network(n_units: int, n_layers: int, n_examples: int, device: str, *, with_baseline: bool) -> dict[str, Any]:
    """A random perceptron with so many hidden units in all, from the model to the graph."""
    torch.manual_seed(0)
    widths = [784, *[n_units // n_layers] * n_layers, 10]
    layers = [layer for a, b in itertools.pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*layers[:-1]).to(device)
    images = torch.rand(n_examples, 784)
    wiring = read_wiring(model, images[:2].to(device))
    before = peak_megabytes()
    batches = [(batch, None) for batch in images.split(500)]
    ours, graph = seconds(lambda: activation_graph(model, wiring, batches))
    result = {"ours": ours, "peak": peak_megabytes(), "before": before, "edges": graph.n_edges}
    if with_baseline:
        result |= against_ranks(model, images.to(device), graph)
    return result


def against_ranks(model: nn.Sequential, images: torch.Tensor, graph: UnitGraph) -> dict[str, Any]:
    """scipy.stats.rankdata and numpy.corrcoef (what spearmanr does) of the same units, with the time to read them."""

    def theirs() -> Any:
        with torch.no_grad():
            parts = [model[: 2 * depth](images).cpu().numpy() for depth in range(1, 5)]
        return np.square(scipy.stats.spearmanr(np.concatenate(parts, axis=1), axis=0).statistic)

    with np.errstate(invalid="ignore"):
        time_taken, wanted = seconds(theirs)
    first, last = graph.blocks[0], graph.blocks[-1]
    difference = 0.0
    for block in (first, last):
        part = np.nan_to_num(wanted[np.ix_(block.targets - 784, block.sources - 784)])
        difference = max(difference, float(np.abs(block.sizes - np.triu(part, 1)).max()))
    return {"baseline": "scipy.stats.spearmanr", "theirs": time_taken, "difference": difference}


def in_own_process(kind: str, *arguments: object) -> dict[str, Any]:
    """Run one row by itself."""
    command = [sys.executable, __file__, "--row", json.dumps([kind, *arguments])]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def row(kind: str, *arguments: Any) -> None:
    """Measure one row and print it as JSON, for the process that asked."""
    if kind == "matrices":
        result = matrices(arguments[0])
    else:
        n_units, n_layers, n_examples, device, with_baseline = arguments
        result = network(n_units, n_layers, n_examples, device, with_baseline=with_baseline)
    print(json.dumps(result))


def print_matrices() -> None:
    print("Squared correlations of all pairs of units, from values in memory (CPU seconds)\n")
    print(f"{'':10} {'units':>6} {'examples':>9}  {'baseline':22} {'theirs':>8} {'ours':>7} {'ratio':>6} difference")
    for correlation, (name, n_units, n_examples) in SMALL.items():
        found = in_own_process("matrices", correlation)
        print(
            f"{correlation:10} {n_units:6,} {n_examples:9,}  {name:22} {found['theirs']:8.2f} {found['ours']:7.2f} "
            f"{found['theirs'] / found['ours']:6.1f} {found['difference']:10.1e}"
        )


def print_networks(sizes: list[tuple[int, int, int, bool]]) -> None:
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    print("\nFrom the model to the graph (CPU seconds; MB: at the peak, and of the process before). Above 20,000 units")
    print("the 64 strongest edges of each unit are kept, and no matrix of all pairs is made.\n")
    print(f"{'units':>8} {'layers':>6} {'examples':>9} {'on':>5} {'ours':>8} {'MB':>6} {'before':>7} {'edges':>12} "
          f"{'spearmanr':>10} {'ratio':>6} {'difference':>11}")  # fmt: skip
    for n_units, n_layers, n_examples, with_baseline in sizes:
        for device in devices:
            found = in_own_process("network", n_units, n_layers, n_examples, device, with_baseline)
            line = f"{n_units:8,} {n_layers:6} {n_examples:9,} {device:>5} {found['ours']:8.2f} {found['peak']:6.0f} "
            line += f"{found['before']:7.0f} {found['edges']:12,}"
            if with_baseline:
                line += f" {found['theirs']:10.2f} {found['theirs'] / found['ours']:6.1f} {found['difference']:11.1e}"
            print(line, flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--growth", action="store_true", help="also up to 100,000 units")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        row(*json.loads(options.row))
        return
    print_matrices()
    sizes = [(2000, 4, 5000, True), (10_000, 4, 5000, True)]
    growth = [(n_units, 1, 1000, False) for n_units in (10_000, 20_000, 40_000, 100_000)]
    print_networks(sizes + growth if options.growth else sizes)


if __name__ == "__main__":
    main()
