"""How fast is each part, beside a named baseline? Runs benchmarks/*.py one after the other, with one thread.

python tools/bench.py            all of them
python tools/bench.py masks      those with "masks" in their name
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


def main(wanted: str = "") -> int:
    """The number of benchmarks that failed."""
    scripts = [path for path in sorted(BENCHMARKS.glob("*.py")) if wanted in path.stem]
    if not scripts:
        print(
            f"no benchmark has '{wanted}' in its name; there are: {', '.join(p.stem for p in BENCHMARKS.glob('*.py'))}"
        )
        return 1
    n_failed = 0
    for script in scripts:
        print(f"\n== {script.stem}", flush=True)
        n_failed += subprocess.run([sys.executable, script], env=os.environ | ONE_THREAD).returncode != 0
    return n_failed


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
