"""How is the picture of the demo's report made? `python docs/images/demo_report.py runs/demo/report.html [HEIGHT]`.

Needs chromium and Pillow; writes demo-report.png beside this file: the page down to HEIGHT, in 256 colours.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).with_name("demo-report.png")


def main(report: Path, height: int = 1690) -> None:
    """Open the report at 1,360 pixels' width and save what stands above HEIGHT."""
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=4000"]
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        options += ["--force-device-scale-factor=1.5", f"--window-size=1360,{height}", f"--user-data-dir={folder}"]
        command = ["chromium", *options, f"--screenshot={shot}", report.resolve().as_uri()]
        subprocess.run(command, check=True, capture_output=True)
        picture = Image.open(shot).convert("RGB")
        few = picture.quantize(256, method=Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
        few.save(PICTURE, optimize=True)
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
