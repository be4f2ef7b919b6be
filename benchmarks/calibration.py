"""How often does each null model cry wolf, and how often does it see the wolf? The tables of docs/null-models.md.

    python benchmarks/calibration.py                      # 100 networks a row: about 20 minutes on one core
    python benchmarks/calibration.py --networks 20        # a quick look
    python benchmarks/calibration.py --nulls keep_unit_scale --rows "equal scales"

Each network gets one p-value from 19 null samples, so that p <= .05 means "lower than all of them".
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from modscope.graph.unit_graph import UnitGraph
from modscope.jobs.executors import one_thread
from modscope.nulls import null_named
from modscope.nulls.simulated import SimulatedChain
from modscope.partition.clusterability import FoundNCut
from modscope.partition.dust import WithoutDust
from modscope.partition.spectral import Spectral
from modscope.randomness import numbered
from modscope.statistics.comparison import comparison_of
from modscope.statistics.experiment import Experiment

N_SAMPLES = 19
N_CLUSTERS = 6

MODULE_FREE = {
    "equal scales": SimulatedChain(),
    "scales spread (sd of log: 1)": SimulatedChain(spread=1),
    "scales spread, density .2": SimulatedChain(spread=1, density=0.2),
    "density .2, degrees spread": SimulatedChain(density=0.2, degree_spread=0.5),
    "scales and degrees spread, density .2": SimulatedChain(spread=1, density=0.2, degree_spread=0.5),
    "scales spread, density .05": SimulatedChain(spread=1, density=0.05),
    "scales spread, 16 units a layer": SimulatedChain(spread=1, n_units=16),
    "incoming and outgoing scale alike (.8)": SimulatedChain(spread=1, dependence=0.8),
    "scales spread, rounded weights": SimulatedChain(spread=1, tail="rounded"),
    "scales spread, Student t weights": SimulatedChain(spread=1, tail="student"),
    "scales spread, log-normal weights": SimulatedChain(spread=1, tail="lognormal"),
    "the same, density .2": SimulatedChain(spread=1, tail="lognormal", density=0.2),
    "Student t, density .2, degrees spread": SimulatedChain(spread=1, tail="student", density=0.2, degree_spread=0.5),
    "Student t, density .1": SimulatedChain(spread=1, tail="student", density=0.1),
    "Student t (2 degrees of freedom), density .1": SimulatedChain(spread=1, tail="student 2", density=0.1),
    "log-normal (sd 1.5), density .2": SimulatedChain(spread=1, tail="lognormal 1.5", density=0.2),
    "equal scales, log-normal, density .2": SimulatedChain(tail="lognormal", density=0.2),
    "exponential, density .2": SimulatedChain(spread=1, tail="exponential", density=0.2),
    "uniform, equal scales": SimulatedChain(tail="uniform"),
    "16 units a layer, density .3": SimulatedChain(spread=1, n_units=16, density=0.3),
    "most units nearly dead (1/30)": SimulatedChain(spread=0.5, dead_share=0.6),
    "most units dead, under a floor of noise": SimulatedChain(spread=0.5, dead_share=0.6, floor=0.03),
}
PLANTED = {
    f"weights in a module x {strength:g}": SimulatedChain(spread=0.7, strength=strength)
    for strength in (1.5, 2, 3, 4, 6, 10)
}


TRUE_SCALES = "true scales known"  # not a null model: no test of a real network can know them


@dataclass(frozen=True)
class ResidualsMoved:
    """What keep_unit_scale would be if it knew the true scales: their residuals in random order."""

    products: tuple[np.ndarray, ...]

    def __call__(self, graph: UnitGraph, rng: np.random.Generator) -> UnitGraph:
        """One null network."""
        blocks = []
        for block, products in zip(graph.blocks, self.products, strict=True):
            residuals = block.sizes / products
            residuals[residuals > 0] = rng.permutation(residuals[residuals > 0])
            blocks.append(replace(block, sizes=(residuals * products).astype(np.float32)))
        return replace(graph, blocks=tuple(blocks))


def outcomes(network: SimulatedChain, null: str, n_networks: int) -> tuple[np.ndarray, np.ndarray]:
    """The z-scores and p-values of networks 0 .. n - 1."""
    statistic = FoundNCut(WithoutDust(Spectral(N_CLUSTERS)))
    z, p = np.empty(n_networks), np.empty(n_networks)
    for index in range(n_networks):
        graph, products = network.with_scales(rng=numbered(index, "simulated network"))
        model = ResidualsMoved(products) if null == TRUE_SCALES else null_named(null)
        experiment = Experiment(graph, statistic, model, index)
        comparison = comparison_of(experiment, [experiment.observed(0)], N_SAMPLES, "less", None)
        z[index], p[index] = comparison.z_score or 0.0, comparison.p_value
    return z, p


def print_table(title: str, networks: dict[str, SimulatedChain], nulls: Sequence[str], n_networks: int) -> None:
    """One row per kind of network: mean z (sd), and the share with p <= .05, under each null."""
    print(f"\n{title} ({n_networks} networks a row, {N_SAMPLES} samples each, k = {N_CLUSTERS})\n")
    print("| networks | " + " | ".join(f"{null}: z (sd) | p <= .05" for null in nulls) + " |")
    print("| --- |" + " --- | --- |" * len(nulls))
    for name, network in networks.items():
        cells = []
        for null in nulls:
            z, p = outcomes(network, null, n_networks)
            cells.append(f"{z.mean():+.2f} ({z.std():.2f}) | {(p <= 0.05 + 1e-9).mean():.3f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=100, help="simulated networks per row")
    parser.add_argument("--nulls", nargs="+", default=["keep_unit_scale", "shuffle_weights"])
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    parser.add_argument("--piece", nargs=2, type=int, default=(0, 1), metavar=("I", "N"), help="every N-th row, from I")
    options = parser.parse_args()
    begin = time.process_time()
    with one_thread():
        for title, networks in (("False alarms", MODULE_FREE), ("Power", PLANTED)):
            chosen = {name: network for name, network in networks.items() if options.rows in name}
            chosen = dict(list(chosen.items())[options.piece[0] :: options.piece[1]])
            if chosen:
                nulls = [*options.nulls, TRUE_SCALES] if title == "Power" else options.nulls
                print_table(title, chosen, nulls, options.networks)
    print(f"\n{time.process_time() - begin:.0f} CPU seconds")


if __name__ == "__main__":
    main()
