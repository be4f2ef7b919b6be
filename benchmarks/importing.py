"""How much does importing modscope add to importing torch? CPU seconds of a fresh process, the least of five."""

from __future__ import annotations

import resource
import subprocess
import sys

STARTS = {
    "python alone": "pass",
    "import torch (baseline)": "import torch",
    "import torch, modscope": "import torch, modscope",
    "every public name": "import torch, modscope as ms; [getattr(ms, name) for name in ms.__all__]",
    "modscope --version": "import sys; from modscope.cli import main; main(['--version'])",
}


def cpu_seconds(code: str) -> float:
    """CPU time of a process that runs the code."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print one line per start, with its ratio to importing torch."""
    seconds = {name: min(cpu_seconds(code) for _ in range(5)) for name, code in STARTS.items()}
    baseline = seconds["import torch (baseline)"]
    print(f"{'':44} {'CPU s':>7} {'ratio':>7}")
    for name, value in seconds.items():
        print(f"{name:44} {value:7.2f} {value / baseline:7.2f}")


if __name__ == "__main__":
    main()
