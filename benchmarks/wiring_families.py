"""What is found in each model family: the table of docs/how-units-are-found.md.

python benchmarks/wiring_families.py        # about half a minute
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from families import FAMILIES
from modscope.wiring.trace import read_wiring


def main() -> None:
    """Print the table, and the warnings below it."""
    print("| family | input | hidden | stream | output | in all | connections | warnings |")
    print("|---|---|---|---|---|---|---|---|")
    warnings = []
    for name, (factory, inputs) in FAMILIES.items():
        torch.manual_seed(0)
        wiring = read_wiring(factory(), inputs)
        sizes = [
            sum(g.size for g in wiring.groups if g.kind == kind) for kind in ("input", "hidden", "stream", "output")
        ]
        n_connections = sum(connection.kind == "weight" for connection in wiring.connections)
        counts = " | ".join(str(size) for size in (*sizes, wiring.n_units, n_connections, len(wiring.warnings)))
        print(f"| {name} | {counts} |")
        warnings += [f"- {name}: {warning}" for warning in wiring.warnings]
    print()
    print("\n".join(warnings))


if __name__ == "__main__":
    main()
