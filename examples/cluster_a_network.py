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
    from transformers import GPT2Config, GPT2Model

    torch.manual_seed(0)
    return GPT2Model(GPT2Config()).eval(), torch.zeros(1, 8, dtype=torch.long)


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--networks", nargs="+", choices=[*PUBLISHED, "gpt2"], default=list(PUBLISHED))
parser.add_argument("--clusters", type=int, default=12)
parser.add_argument("--samples", type=int, default=39, help="random networks of each null model")
parser.add_argument("--picture", help="where to draw the n-cuts of the last network")
options = parser.parse_args()

if "gpt2" not in options.networks and not Path(DATA, "networks").is_dir():
    raise SystemExit(f"there are no published networks at {DATA}; set MODSCOPE_DATA")

for name in options.networks:
    wiring = ms.read_wiring(*network(name))
    graph = ms.weight_graph(wiring)
    with ms.progress():  # bars with the time left
        result = ms.clusterability(graph, ms.Spectral(options.clusters), n_samples=options.samples, n_observed=2)
    print(f"\n{name}: {graph}")
    print(f"verdict: {result.verdict} - {result.sentence}")
    print(
        f"n-cut {result.n_cut:.3f}; cluster sizes {result.partition.sizes.tolist()}; stability {result.stability:.2f}"
    )
    print(result.to_frame().select("null", "null_mean", "null_sd", "effect", "z_score", "p_value", "floor"))

if options.picture:
    figure = result.plot().figure
    figure.tight_layout()
    figure.savefig(options.picture)
    print(f"picture: {options.picture}")
