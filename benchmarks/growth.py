"""How does the cost of decoding grow with the sequences of a batch, and with the context?

    python benchmarks/growth.py MODEL.gguf … [-t 2] [-r 12] [--depth 4096] [--cache-type f16]

Passes of 1, 2, 4 and 8 rows, each row another sequence with a short context of its own, take
turns with passes of one row at `--depth`. Milliseconds are medians over the rounds. Printed are
the cost of four rows over one, the throughput of eight sequences over one, and the share of its
speed that decoding keeps at depth. Logits are computed for every row, as a server needs them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

from trit.engine import CACHE_TYPES, Engine, Rows
from trit.evaluate._machine import build_commit, cpu_name
from trit.evaluate._opened import Opened

BATCHES = (1, 2, 4, 8)
SHORT = 64  # positions of every sequence before the measured token
DEEP = 100  # the number of the deep sequence


def seconds(engine: Engine, rows: Rows) -> float:
    """One pass with the logits of all its rows; what it wrote is taken back."""
    begun = time.perf_counter()
    engine.forward(rows, range(len(rows.tokens)))
    took = time.perf_counter() - begun
    for sequence, position in zip(rows.sequences, rows.positions, strict=True):
        engine.remove(int(sequence), int(position))
    return took


def rows_of(sequences: list[int], position: int) -> Rows:
    """A token for each of the sequences, all at one position."""
    n = len(sequences)
    return Rows(
        tokens=np.arange(100, 100 + n, dtype=np.int32),
        sequences=np.asarray(sequences, dtype=np.int32),
        positions=np.full(n, position, dtype=np.int64),
    )


def measure(model: str, options: argparse.Namespace) -> str:
    """A line of the table."""
    prompt = [100 + i % 100 for i in range(max(options.depth, SHORT))]
    with Opened(model, options.depth + 1, options.threads, options.cache_type) as opened:
        engine = opened.engine
        for sequence in range(max(BATCHES)):
            engine.forward(Rows.of(prompt[:SHORT], 0, sequence))
        engine.forward(Rows.of(prompt[: options.depth], 0, DEEP))
        passes = {f"{n}": rows_of(list(range(n)), SHORT) for n in BATCHES}
        passes["deep"] = rows_of([DEEP], options.depth)
        took: dict[str, list[float]] = {name: [] for name in passes}
        for _ in range(options.rounds + 1):
            for name, rows in passes.items():
                took[name].append(seconds(engine, rows))
    middle = {name: statistics.median(each[1:]) for name, each in took.items()}  # the first warms
    ratio = {
        name: statistics.median(a / b for a, b in zip(each[1:], took["1"][1:], strict=True))
        for name, each in took.items()
    }
    cells = [f"{1000 * middle[name]:.1f}" for name in passes]
    cells += [f"{ratio['4']:.2f}", f"{8 / ratio['8']:.2f}", f"{100 / ratio['deep']:.0f}%"]
    return f"| {Path(model).stem} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL.gguf")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("-r", "--rounds", type=int, default=12)
    parser.add_argument("--depth", type=int, default=4096)
    parser.add_argument("--cache-type", choices=CACHE_TYPES, default="f16")
    options = parser.parse_args()
    print(f"{cpu_name()}, {options.threads} threads, trit {build_commit()}\n")
    print(f"| milliseconds | 1 | 2 | 4 | 8 | 1 at {options.depth} "
          "| four / one | throughput of eight | kept at depth |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    for model in options.models:
        print(measure(model, options), flush=True)


if __name__ == "__main__":
    main()
