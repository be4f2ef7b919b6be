"""What does a draw of each null model cost, beside the papers' way?

    python benchmarks/nulls.py             # a minute on one core
    python benchmarks/nulls.py --draws 3

CPU milliseconds a draw, the first one (which fits the scales) apart. The baseline is np.random.shuffle of the flat
weights of each layer, zeros too, as in Filan et al.'s programs.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time

import numpy as np

from modscope.graph.unit_graph import UnitGraph
from modscope.graph.weights import chain_graph
from modscope.jobs.executors import one_thread
from modscope.nulls import null_named

NULLS = ("shuffle_weights", "keep_unit_scale", "keep_unit_scale_by_size", "keep_unit_scale_rewired")
MLP = (784, 256, 256, 256, 256, 10)
VGG = (3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)  # 4,224 filters after the input
RESNET = (3, *[16] * 7, *[32] * 6, *[64] * 6, 10)  # the widths of ResNet-20, as a chain


def networks() -> dict[str, UnitGraph]:
    """The graphs that null models are drawn for."""
    wide = tuple(round(width * np.sqrt(10)) for width in MLP)
    wider = tuple(10 * width for width in MLP)
    return {
        "MLP 784-256x4-10": _random_chain(MLP),
        "the same, density .1": _random_chain(MLP, density=0.1),
        "VGG-16's filters (4,224 units)": _random_chain(VGG),
        "ResNet-20's widths": _random_chain(RESNET),
        "MLP, 10 x the edges": _random_chain(wide),
        "MLP, 100 x the edges": _random_chain(wider),
    }


def _random_chain(widths: tuple[int, ...], density: float = 1.0) -> UnitGraph:
    rng = np.random.default_rng(0)
    weights = []
    for before, after in itertools.pairwise(widths):
        sizes = np.abs(rng.standard_normal((after, before), dtype=np.float32))
        weights.append(sizes if density == 1 else sizes * (rng.random(sizes.shape) < density))
    return chain_graph(weights)


def papers_ms(graph: UnitGraph, n_draws: int) -> float:
    """CPU milliseconds of one draw in the papers' way."""
    weights = [np.asarray(block.sizes).reshape(-1).copy() for block in graph.blocks]
    begin = time.process_time()
    for _ in range(n_draws):
        for layer in weights:
            np.random.shuffle(layer)  # noqa: NPY002 - the baseline is theirs
    return (time.process_time() - begin) / n_draws * 1e3


def draw_ms(graph: UnitGraph, null: str, n_draws: int) -> tuple[float, float]:
    """CPU milliseconds of the first draw, and of each later one."""
    model, times = null_named(null), []
    for index in range(n_draws + 1):
        begin = time.process_time()
        model(graph, index)
        times.append((time.process_time() - begin) * 1e3)
    return times[0], float(np.mean(times[1:]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--networks", default="", help="only those whose name contains this")
    options = parser.parse_args()
    print(
        "| network | edges | the papers' shuffle | " + " | ".join(f"{null} (first)" for null in NULLS) + " | peak GiB |"
    )
    print("| --- | --- | --- |" + " --- |" * len(NULLS) + " --- |")
    with one_thread():
        null_named("shuffle_weights")(_random_chain((4, 4)), 0)  # compile
        for name, graph in networks().items():
            if options.networks not in name:
                continue
            cells = [f"{papers_ms(graph, options.draws):.2f}"]
            for null in NULLS:
                first, later = draw_ms(graph, null, options.draws)
                cells.append(f"{later:.2f} ({first:.0f})")
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            print(f"| {name} | {graph.n_edges:,} | " + " | ".join(cells) + f" | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
