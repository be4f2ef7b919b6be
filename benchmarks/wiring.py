"""How long does it take to read a wiring, and how much memory? CPU seconds, also as a multiple of one forward pass.

python benchmarks/wiring.py                 # all: about a minute on one core
python benchmarks/wiring.py mlp gpt2        # some
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from families import gpt2, llama, mlp, resnet18, resnet50, vgg16
from modscope.calling import call
from modscope.wiring.trace import read_wiring

IMAGE = torch.zeros(1, 3, 224, 224)
TOKENS = {"input_ids": torch.arange(8)[None]}
SMALL = {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
LLAMA_7B = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32000, "max_position_embeddings": 2048,
}  # fmt: skip
# name -> (factory, inputs, from shapes alone, goal in seconds, goal in GB)
MODELS: dict[str, tuple[Any, Any, bool, float, float | None]] = {
    "mlp": (lambda: mlp((784, 256, 256, 256, 10)), torch.zeros(1, 784), False, 0.2, None),
    "resnet18": (resnet18, IMAGE, False, 3, None),
    "resnet50": (resnet50, IMAGE, False, 3, None),
    "vgg16": (vgg16, IMAGE, False, 5, None),
    "gpt2": (lambda: gpt2(**SMALL), TOKENS, False, 3, 2.5),
    "llama-7b": (lambda: llama(**LLAMA_7B), TOKENS, True, 60, 6),
}


def measured(name: str) -> str:
    """One row of the table; run in a process of its own, so that memory is this model's alone."""
    factory, inputs, from_shapes, goal, goal_memory = MODELS[name]
    read_wiring(nn.Linear(2, 2), torch.zeros(1, 2))  # what torch.export itself loads on first use is not ours
    with torch.device("meta" if from_shapes else "cpu"):
        model = factory().eval()
    start = time.process_time()
    wiring = read_wiring(model, inputs)
    seconds = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    ratio = "-"
    if not from_shapes:
        with torch.no_grad():
            call(model, inputs)
            start = time.process_time()
            call(model, inputs)
        ratio = f"{seconds / (time.process_time() - start):.0f}"
    limit = f"{goal} s" + (f", {goal_memory} GB" if goal_memory else "")
    return f"| {name} | {wiring.n_units:,} | {seconds:.2f} | {memory:.2f} | {ratio} | {limit} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=list(MODELS), metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--row", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        torch.set_num_threads(1)
        threadpool_limits(1)  # a second thread of numpy would wait, and waiting counts as CPU time
        print(measured(options.row))
        return
    print("| model | units | CPU seconds | peak GB (torch and weights too) | forward passes | goal |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in options.models:
        command = [sys.executable, __file__, "--row", name]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
