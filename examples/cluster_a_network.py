"""Is a published network clustered, more than chance and the scale of its units explain?

python examples/cluster_a_network.py                               # ResNet-20 and MobileNet, from MODSCOPE_DATA
python examples/cluster_a_network.py --networks gpt2 --samples 19  # GPT-2 small's shape, random weights: minutes
python examples/cluster_a_network.py --picture clusters.png
"""

from __future__ import annotations

# marks: slow
# marks: data
import argparse
import os
from pathlib import Path

import numpy as np
import torch
from torch import nn

import modscope as ms
from modscope.models.published import load

PUBLISHED = {"resnet20": "resnet20_cifar10", "mobilenet": "mobilenet_v1_0.5_160_imagenet"}
DATA = os.environ.get("MODSCOPE_DATA") or str(Path(__file__).resolve().parents[2] / "shared" / "data")


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    """The model, and inputs that it takes."""
    if name in PUBLISHED:
        published = load(PUBLISHED[name], folder=DATA)
        return published.model, published.example_inputs
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config()).eval(), torch.zeros(1, 8, dtype=torch.long)


def clustered(name: str, n_clusters: int, n_samples: int) -> tuple[ms.UnitGraph, ms.Clusterability]:
    """The network's units as a graph, and its clusters against both null models."""
    graph = ms.weight_graph(ms.read_wiring(*network(name)))
    with ms.progress():  # bars with the time left
        result = ms.clusterability(graph, ms.Spectral(n_clusters), n_samples=n_samples)
    print(f"\n{name}: {graph}")
    print(f"verdict: {result.verdict} - {result.sentence}")
    print(f"cluster sizes {result.partition.sizes.tolist()}; stability {result.stability:.2f}")
    print(result.to_frame().select("null", "n_cut", "null_mean", "null_sd", "effect", "z_score", "p_value", "floor"))
    return graph, result


def units_by_group(graph: ms.UnitGraph, partition: ms.Partition) -> np.ndarray:
    """How many of each unit group's units (rows) are in each cluster (columns), as a share of the group."""
    counts = np.zeros((len(graph.group_names), partition.n_clusters))
    is_in = partition.labels >= 0
    np.add.at(counts, (graph.group_of[is_in], partition.labels[is_in]), 1)
    return counts / np.maximum(np.bincount(graph.group_of, minlength=len(counts)), 1)[:, None]


def draw(found: dict[str, tuple[ms.UnitGraph, ms.Clusterability]], path: str) -> None:
    """One row per network: where its clusters lie, layer by layer, and its n-cut beside those of random networks."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(found), 2, figsize=(12, 3.6 * len(found)), squeeze=False)
    for (name, (graph, result)), (left, right) in zip(found.items(), axes, strict=True):
        shares = units_by_group(graph, result.partition)
        image = left.imshow(shares, aspect="auto", cmap="Blues", vmin=0, vmax=1)
        figure.colorbar(image, ax=left, label="share of the group's units")
        left.set(title=name, xlabel="cluster", ylabel="unit group, by depth", xticks=range(shares.shape[1]))
        result.plot(right)
        right.set_title(f"verdict: {result.verdict}")
    figure.tight_layout()
    figure.savefig(path)
    print(f"picture: {path}")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--networks", nargs="+", choices=[*PUBLISHED, "gpt2"], default=list(PUBLISHED))
parser.add_argument("--clusters", type=int, default=12)
parser.add_argument("--samples", type=int, default=39, help="random networks of each null model")
parser.add_argument("--picture", help="where to draw what was found")
options = parser.parse_args()

if set(options.networks) & set(PUBLISHED) and not Path(DATA, "networks").is_dir():
    raise SystemExit(f"there are no published networks at {DATA}; set MODSCOPE_DATA")

found = {name: clustered(name, options.clusters, options.samples) for name in options.networks}
if options.picture:
    draw(found, options.picture)
