"""How fast are graphs and clusters, beside scikit-learn's SpectralClustering with the papers' settings?

python benchmarks/structure.py             all tables
python benchmarks/structure.py --plot P    also draws growth with the number of edges into the picture P

CPU seconds in one thread. Whatever is measured for its memory runs in a process of its own.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import chain as chain_of
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.stats
import torch
from sklearn.cluster import SpectralClustering
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from modscope.graph.activations import activation_graph
from modscope.graph.operator import normalized_operator
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.graph.weights import weight_graph
from modscope.nulls import NullModel, null_named
from modscope.partition.dust import WithoutDust
from modscope.partition.embedding import embed
from modscope.partition.quality import n_cut
from modscope.partition.spectral import Spectral
from modscope.randomness import numbered
from modscope.wiring.trace import read_wiring
from planted.graphs import chain, gaussian_mlp, planted_mlp, pruned, sparse_layers, vgg_kernels

torch.set_num_threads(1)
threadpool_limits(1)  # a second thread of numpy would wait, and waiting counts as CPU time
SIZES = ((10_000, 100_000), (100_000, 1_000_000), (1_000_000, 10_000_000))


def seconds(work: Callable[[], Any], n_times: int = 1) -> tuple[float, Any]:
    """CPU seconds of one call (mean), and the last result."""
    started = time.process_time()
    for _ in range(n_times):
        result = work()
    return (time.process_time() - started) / n_times, result


def peak_megabytes() -> float:
    """Largest memory of this process so far (of Linux's own figures the one that starts anew with each program)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))


def fresh(graph: UnitGraph, rng: np.random.Generator | None = None) -> UnitGraph:
    """The same graph with nothing remembered of it; with rng: each layer's weights shuffled."""
    blocks = []
    for block in graph.blocks:
        sizes = block.sizes if rng is None else rng.permutation(block.sizes.ravel()).reshape(block.sizes.shape)
        blocks.append(Block(block.sources, block.targets, sizes, block.name))
    return UnitGraph(tuple(blocks), graph.group_of, graph.group_names)


def papers(graph: UnitGraph, n_clusters: int, seed: int) -> np.ndarray:
    """scikit-learn's labels with the papers' settings."""
    n_init = 100 if graph.n_units > 2000 else 25
    clustering = SpectralClustering(
        n_clusters, eigen_solver="arpack", affinity="precomputed", n_init=n_init, random_state=seed
    )
    adjacency = sp.csr_matrix(graph.adjacency())
    adjacency.indices, adjacency.indptr = adjacency.indices.astype(np.int32), adjacency.indptr.astype(np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # several components, in the planted pruned network
        return np.asarray(clustering.fit_predict(adjacency))


def one_clustering() -> None:
    print("One clustering, k = 12 (CPU ms; n-cut is the mean over seeds)\n")
    print(f"{'network':24} {'papers':>8} {'ours':>8} {'ratio':>6} {'refined':>8} {'ratio':>6}   n-cut of the three")
    graphs = {
        "784-256x4-10": (chain(gaussian_mlp()), 3),
        "the same, 90% pruned": (chain(pruned(gaussian_mlp())), 3),
        "the same, 4 modules": (chain(planted_mlp()[0]), 3),
        "VGG, 4,224 filters": (chain(vgg_kernels()[1:], edge_norm="official_l1"), 3),
    }
    for name, (graph, n_baseline) in graphs.items():
        ways = {
            "papers": (lambda seed, g=graph: papers(g, 12, seed), n_baseline),
            "ours": (lambda seed, g=graph: Spectral(12, refine=False)(fresh(g), rng=seed).labels, 10),
            "refined": (lambda seed, g=graph: Spectral(12)(fresh(g), rng=seed).labels, 10),
        }
        times, cuts = {}, {}
        for way, (cluster, n_times) in ways.items():
            cluster(0)  # compiled code is loaded
            runs = [seconds(lambda seed=seed, cluster=cluster: cluster(seed)) for seed in range(n_times)]
            times[way] = 1000 * float(np.median([run[0] for run in runs]))
            cuts[way] = float(np.mean([n_cut(graph, run[1]) for run in runs]))
        print(
            f"{name:24} {times['papers']:8.0f} {times['ours']:8.1f} {times['papers'] / times['ours']:6.1f} "
            f"{times['refined']:8.1f} {times['papers'] / times['refined']:6.1f}   "
            f"{cuts['papers']:.4f}, {cuts['ours']:.4f}, {cuts['refined']:.4f}"
            f" (x {cuts['refined'] / cuts['papers']:.4f})"
        )


def many_clusterings() -> None:
    """The whole cost of a comparison: drawing, clustering and n-cut of the network and its random versions."""
    graph = chain([weight.astype(np.float32) for weight in gaussian_mlp()])
    theirs, their_cuts = seconds(lambda: [n_cut(g, papers(g, 12, 0)) for g in _shuffled_as_papers_do(graph, 3)])
    print("\n784-256x4-10 and 50 random networks, k = 12: drawing, clustering, n-cut (CPU s; papers: 3 of them x 17)\n")
    print(f"{'papers, their shuffle':34} {17 * theirs:6.2f}          n-cut {np.mean(their_cuts):.4f}")
    for name in ("shuffle_weights", "keep_unit_scale"):
        null = null_named(name)
        clustered(graph, null, 2)  # what is fitted once is fitted, compiled code is loaded
        drawing, _ = seconds(lambda null=null: [null(graph, numbered(0, null.__name__, i)) for i in range(50)])
        ours, cuts = seconds(lambda null=null: clustered(graph, null, 50))
        print(
            f"{'ours, refined, ' + name:34} {ours:6.2f}  x {17 * theirs / ours:4.1f}  n-cut {np.mean(cuts):.4f}"
            f"   (drawing alone {drawing:.2f})"
        )


def clustered(graph: UnitGraph, null: NullModel, n_samples: int, **options: Any) -> list[float]:
    """n-cuts of a graph and its random versions, as `clusterability` finds them."""
    partitioner = WithoutDust(Spectral(12, **options))
    rngs = (numbered(0, null.__name__, index) for index in range(n_samples))
    pairs = chain_of([(fresh(graph), numbered(0, "observed"))], ((null(graph, rng), rng) for rng in rngs))
    return [n_cut(*pair) for pair in partitioner.many(pairs)]


def _shuffled_as_papers_do(graph: UnitGraph, n_samples: int) -> Iterator[UnitGraph]:
    for seed in range(n_samples):
        yield fresh(graph, np.random.default_rng(seed))


def batches() -> None:
    """Graphs side by side against one by one: the same n-cuts, and, where there is a GPU, a thousand in one call."""
    graph = chain([weight.astype(np.float32) for weight in gaussian_mlp()])
    null = null_named("shuffle_weights")
    alone = np.array(clustered(graph, null, 20))
    print("\n784-256x4-10, k = 12, graphs side by side (seconds on the clock; difference from one by one)\n")
    rows = [("cpu", 8, 20)]
    if torch.cuda.is_available():
        clustered(graph, null, 2, device="cuda")  # the device is started
        rows += [("cuda", 1, 20), ("cuda", None, 20), ("cuda", None, 1000)]
    for device, size, n_samples in rows:
        started = time.perf_counter()
        found = np.array(clustered(graph, null, n_samples, device=device, batch_size=size))
        wall = time.perf_counter() - started
        apart = float(np.abs(found[: len(alone)] - alone).max())
        print(
            f"{device:5} batches of {size or 'all that fit'}: 1 + {n_samples} networks {wall:.2f} s, apart {apart:.1e}"
        )


def growth(n_units: int, n_edges: int, n_modules: int) -> dict[str, float]:
    """CPU seconds and memory of clustering one large sparse graph."""
    Spectral(3)(sparse_layers(1000, 3000)[0])  # compiled code is loaded
    graph, _ = sparse_layers(n_units, n_edges, n_modules=n_modules)

    def eigenvectors() -> None:
        operator = normalized_operator(graph)
        embed(operator, 12, graph.components[operator.units], rng=np.random.default_rng(0))

    embedding, _ = seconds(eigenvectors)
    whole, partition = seconds(lambda: Spectral(12)(UnitGraph(graph.blocks, graph.group_of, graph.group_names), rng=0))
    memory = peak_megabytes()
    return {"embedding": embedding, "whole": whole, "n-cut": n_cut(graph, partition), "MB": memory}


def gpt2() -> dict[str, float]:
    """CPU seconds and memory from GPT-2 small (random weights) to labels."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config()).eval()
    Spectral(3)(chain(gaussian_mlp(widths=(300, 200, 100))))
    before = peak_megabytes()
    wiring_seconds, wiring = seconds(lambda: read_wiring(model, {"input_ids": torch.zeros(1, 8, dtype=torch.long)}))
    graph_seconds, graph = seconds(lambda: weight_graph(wiring))
    cluster_seconds, _ = seconds(lambda: Spectral(12)(graph))
    return {
        "wiring": wiring_seconds, "graph": graph_seconds, "clusters": cluster_seconds,
        "whole": wiring_seconds + graph_seconds + cluster_seconds,
        "units": graph.n_units, "edges": graph.n_edges, "MB before": before, "MB": peak_megabytes(),
    }  # fmt: skip


def activations() -> dict[str, float]:
    """CPU seconds and memory of the activation graph of 10,000 units on 5,000 examples."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(64, 5000),
        torch.nn.ReLU(),
        torch.nn.Linear(5000, 5000),
        torch.nn.ReLU(),
        torch.nn.Linear(5000, 2),
    )
    batches = [torch.randn(500, 64) for _ in range(10)]
    wiring = read_wiring(model, batches[0][:2])
    ours, graph = seconds(lambda: activation_graph(model, wiring, batches))
    memory = peak_megabytes()
    some = torch.cat(batches).numpy() @ np.random.default_rng(0).standard_normal((64, 500))
    baseline, _ = seconds(lambda: scipy.stats.spearmanr(some))
    return {"whole": ours, "MB": memory, "edges": graph.n_edges, "scipy, 500 units": baseline}


def in_a_process(*arguments: object) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--one", *map(str, arguments)], check=True, capture_output=True, text=True
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def grow(picture: str | None) -> None:
    print("\nLayered graphs, ten layers, k = 12 (CPU s; MB: peak of the process, graph and libraries included)\n")
    print(
        f"{'units':>9} {'edges':>10} {'modules':>7} {'eigenvectors':>12} {'whole':>7} {'n-cut':>7} {'MB':>6}   papers"
    )
    baseline, _ = seconds(lambda: papers(sparse_layers(10_000, 100_000)[0], 12, 0))
    points = []
    for n_units, n_edges in SIZES:
        for n_modules in (10, 1):
            found = in_a_process("growth", n_units, n_edges, n_modules)
            points.append((n_edges, n_modules, found["embedding"], found["whole"]))
            shown = f"{baseline:.1f} s" if n_units == 10_000 and n_modules == 1 else ""
            print(
                f"{n_units:9} {n_edges:10} {n_modules:7} {found['embedding']:12.2f} {found['whole']:7.2f} "
                f"{found['n-cut']:7.3f} {found['MB']:6.0f}   {shown}"
            )
    if picture:
        draw(points, baseline, picture)


def draw(points: list[tuple[int, int, float, float]], baseline: float, picture: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ax = pyplot.subplots(figsize=(5, 3.2), layout="constrained")
    for n_modules, name in ((10, "10 modules"), (1, "no modules")):
        some = [(point[0], point[3]) for point in points if point[1] == n_modules]
        ax.loglog(*zip(*some, strict=True), marker="o", label=f"modscope, {name}")
    ax.loglog([SIZES[0][1]], [baseline], marker="x", linestyle="", label="scikit-learn, the papers' settings")
    ax.set_xlabel("edges")
    ax.set_ylabel("CPU seconds, graph to labels")
    ax.legend()
    figure.savefig(picture, dpi=120)


def main() -> None:
    arguments = sys.argv[1:]
    if arguments[:1] == ["--one"]:
        work = {"growth": growth, "gpt2": gpt2, "activations": activations}[arguments[1]]
        print(json.dumps(work(*map(int, arguments[2:]))))
        return
    one_clustering()
    many_clusterings()
    batches()
    grow(arguments[1] if arguments[:1] == ["--plot"] else None)
    found = in_a_process("gpt2")
    print(
        f"\nGPT-2 small, {found['units']:.0f} units, {found['edges']:.3g} edges: wiring {found['wiring']:.1f} + graph "
        f"{found['graph']:.1f} + clusters {found['clusters']:.1f} = {found['whole']:.1f} CPU s, "
        f"peak {found['MB']:.0f} MB ({found['MB before']:.0f} MB before)"
    )
    found = in_a_process("activations")
    print(
        f"Activation graph, 10,000 units x 5,000 examples: {found['whole']:.1f} CPU s, peak {found['MB']:.0f} MB; "
        f"scipy.stats.spearmanr takes {found['scipy, 500 units']:.1f} s for 500 units, x 400 for as many pairs"
    )


if __name__ == "__main__":
    main()
