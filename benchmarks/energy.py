"""Joules per token of one shape in several types, modelled: docs/performance.md.

    python benchmarks/energy.py bitnet-2b F16 Q4_K_M TQ2_0

Each file is written (random weights, seed 0), looked at and removed; nothing is run. Figures are
those of `trit bench --energy`, in millijoules per token; trit.evaluate.energy says what is in them.
"""

import argparse
import tempfile
from pathlib import Path

from trit.evaluate._opened import Opened
from trit.evaluate.energy import modelled
from trit.evaluate.speed import SpeedTest
from trit.synth import synth

TESTS = (SpeedTest(512, 0), SpeedTest(0, 128), SpeedTest(0, 128, depth=3840))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape")
    parser.add_argument("types", nargs="+")
    parser.add_argument("--folder", type=Path, help="for the files; default: the system's")
    given = parser.parse_args()
    print("| test | type | MB read | arithmetic | ternary as sums | DDR | HBM2 |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for kind in given.types:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            path = Path(folder) / "model.gguf"
            synth(given.shape, path, kind)
            with Opened(path, 4096, 1) as opened:
                for test in TESTS:
                    print(_row(kind, test, opened), flush=True)


def _row(kind: str, test: SpeedTest, opened: Opened) -> str:
    found = modelled(opened, test)
    joules = (found.arithmetic, found.arithmetic_adding, found.memory_ddr, found.memory_hbm)
    cells = [test.label, kind, f"{found.bytes / 1e6:.1f}", *(f"{1e3 * j:.3g}" for j in joules)]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
