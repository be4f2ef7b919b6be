"""Which null model of weights fits published networks? The table of "dead units" in docs/null-models.md.

    python benchmarks/published_nulls.py            # ResNets and LeNets, 10 CPU seconds; needs MODSCOPE_DATA
    python benchmarks/published_nulls.py --networks mobilenet_v1_0.5_160_imagenet

Below each row: the layer whose largest weight grows most in a null network (as a share of the layer), and how strongly
the spread of a unit's residuals falls with its scale there.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

import modscope as ms
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.jobs.executors import one_thread
from modscope.models.published import load
from modscope.nulls import null_named
from modscope.nulls.blocks import layer_of
from modscope.nulls.layer_sums import row_sums, sums
from modscope.nulls.scale_estimates import least_squares_log_scales

NETWORKS = ("resnet20_cifar10", "resnet56_cifar10", "lenet_mnist", "lenet_fashion_mnist")
NULLS = ("shuffle_weights", "keep_unit_scale", "keep_unit_scale_by_size")
DATA = os.environ.get("MODSCOPE_DATA") or str(Path(__file__).resolve().parents[2] / "shared" / "data")


def largest_share(block: Block) -> float:
    """The largest weight of a layer as a share of their sum."""
    return float(block.entries.max() / block.entries.sum(dtype=np.float64))


def spread_against_scale(block: Block) -> float:
    """Correlation, over the rows of a layer, of the log scale with the standard deviation of the log residuals."""
    layer = layer_of(block)
    logs = np.log(layer.sizes)
    scales = least_squares_log_scales(layer, logs)
    squares = row_sums(layer, (logs - sums(layer, scales)) ** 2)
    is_there = squares > 0
    n = row_sums(layer, np.ones(layer.n_entries))[is_there]
    return float(np.corrcoef(scales[0][is_there], np.sqrt(squares[is_there] / n))[0, 1])


def worst_layer(graph: UnitGraph) -> str:
    """The layer whose largest weight grows most under keep_unit_scale, in words."""
    random = null_named("keep_unit_scale")(graph, 1)
    shares = [(largest_share(old), largest_share(new)) for old, new in zip(graph.blocks, random.blocks, strict=True)]
    worst = int(np.argmax([new / old for old, new in shares]))
    old, new = shares[worst]
    return (
        f"{graph.blocks[worst].name}: largest weight {old:.3f} of the layer, {new:.3f} in a null network; "
        f"correlation {spread_against_scale(graph.blocks[worst]):+.2f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--samples", type=int, default=39, help="null networks of each model")
    options = parser.parse_args()
    print("| network | n-cut | " + " | ".join(f"{null}: n-cut, z, p" for null in NULLS) + " |")
    print("| --- | --- |" + " --- |" * len(NULLS))
    notes = []
    with one_thread():
        for name in options.networks:
            published = load(name, folder=DATA)
            graph = ms.weight_graph(ms.read_wiring(published.model, published.example_inputs))
            found = ms.clusterability(graph, ms.Spectral(12), nulls=NULLS, n_samples=options.samples, n_observed=1)
            cells = [
                f"{test.null_samples.mean():.3f}, {test.z_score or 0.0:+.1f}, {test.p_value:.3f}"
                for test in found.values()
            ]
            print(f"| {name} | {found.n_cut:.3f} | " + " | ".join(cells) + " |", flush=True)
            notes.append(f"{name}: {worst_layer(graph)}")
    print("\n" + "\n".join(notes))


if __name__ == "__main__":
    main()
