"""SIGKILL a training run at random moments; it must end in the bytes of one that nothing disturbed.

    python benchmarks/training_kills.py FOLDER --kills 20

FOLDER gets two runs of one small model on this repository's essay, with one thread: one whole, one
killed. A kill comes a random time, of a fixed seed, after a part has begun to take steps. Compared
are the diaries (losses with all digits, bits per byte, samples) and the GGUF files.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from trit.training import log, train

ROOT = Path(__file__).resolve().parent.parent
STEPS = 400
CONFIG = f"""
seed = 0
[model]
width = 32
layers = 2
heads = 4
ffn = 64
context = 32
[tokenizer]
vocab = 300
[data]
files = ["essay.txt"]
held_out = 0.1
[training]
steps = {STEPS}
batch = 4
[run]
checkpoint_every = 7
held_out_every = 50
[output]
type = "F16"
"""
LONGEST = 0.5  # seconds of steps before a kill


def prepare(folder: Path) -> Path:
    """The config and its text in a folder of their own."""
    folder.mkdir(parents=True)
    (folder / "essay.txt").write_bytes((ROOT / "tests" / "text" / "essay.txt").read_bytes())
    (folder / "run.toml").write_text(CONFIG)
    return folder / "run.toml"


def diary(path: Path) -> list[dict[str, Any]]:
    """A run's log without the figures of the clock."""
    clock = {"seconds", "tokens_per_second"}
    lines = log.read(path.with_suffix(""))
    return [{key: value for key, value in line.items() if key not in clock} for line in lines]


def kill_once(path: Path, seconds: float) -> int | None:
    """Start or go on, kill `seconds` after it began; the last step, None if it ended before."""
    script = f"from trit.training import train; train({str(path)!r}, threads=1)"
    file = path.with_suffix("") / log.FILE
    before = file.stat().st_ino if file.exists() else None
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    while process.poll() is None and (not file.exists() or file.stat().st_ino == before):
        time.sleep(0.001)  # the diary is written anew when a part begins
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lines = log.read(path.with_suffix(""))
    return int(lines[-1]["step"]) if process.returncode == -signal.SIGKILL and lines else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    drawn = random.Random(0)
    whole, killed = (prepare(given.folder / name) for name in ("whole", "killed"))
    expected = train(whole, threads=1)
    steps: list[int] = []
    while len(steps) < given.kills:
        step = kill_once(killed, drawn.uniform(0, LONGEST))
        if step is None or step == STEPS:
            print("it came to its end: begun again")
            (killed.with_suffix("") / "state.npz").unlink(missing_ok=True)
        if step is not None:
            steps.append(step)
    found = train(killed, threads=1)
    print(f"{len(steps)} kills, at steps {steps}")
    print(f"log of {len(diary(whole)):,} lines equal: {diary(whole) == diary(killed)}")
    print(f"files equal: {expected.gguf.read_bytes() == found.gguf.read_bytes()}")


if __name__ == "__main__":
    main()
