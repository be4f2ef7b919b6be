"""What does an empty environment get today? Prints constraints.txt."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from pathlib import Path

TORCH = "torch==2.13.0"  # without a local version: CPU and GPU builds both satisfy it
HEADER = """\
# What a fresh install of every extra gets, and nothing else: the versions that the tests have seen.
# Made from an empty .venv by: make constraints
"""


def pins(extras: str) -> list[str]:
    """One `name==version` per package that the extras bring into an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        pip = (str(Path(folder, "bin", "python")), "-m", "pip")
        # torch first: asked for by a range, it would come in its newest GPU build
        for wanted in ([TORCH], ["hatchling", "editables"], ["--no-build-isolation", "--editable", f".[{extras}]"]):
            subprocess.run([*pip, "install", "--quiet", *wanted], check=True, stdout=sys.stderr)
        frozen = subprocess.run([*pip, "freeze", "--exclude-editable"], check=True, capture_output=True, text=True)
    lines = frozen.stdout.splitlines()
    return [TORCH if line.startswith("torch==") else line for line in lines if not line.startswith("nvidia-")]


if __name__ == "__main__":
    print(HEADER + "\n".join(pins(sys.argv[1])))
