"""How many neurons of a feed-forward are dark, and what skipping them could save.

    python benchmarks/dark_neurons.py MODEL.gguf --text FILE

A neuron is dark at a token where its input to the down projection, rounded to int8 as the engine
rounds it, is zero: the column of weights that it would be multiplied with need not be read. Columns
are stored and read many at a time, so per layer this prints the share of zeros and the share of
runs of columns that are zero together: 4 (one instruction), 16 (a line of TQ2_0's 64 bytes: columns
c … c + 3 and those 32, 64, 96 further on), 32, 128 and 256 (whole lines one after the other). The
second row of a layer has the neurons in the order of how often they are lit in the first half of
the text; it is measured, as all is, on the second half.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit.engine import Rows
from trit.evaluate._opened import Opened
from trit.plan import GatedFeedForward, PlainFeedForward

Floats = NDArray[np.float32]
Codes = NDArray[np.int8]

BLOCK = 32  # columns that the engine rounds together
RUNS = (4, 16, 32, 128, 256)


def rounded(x: Floats) -> Codes:
    """Inputs (n, cols) as the engine rounds them: int8 in blocks of 32 columns."""
    blocks = x.reshape(len(x), -1, BLOCK)
    largest = np.abs(blocks).max(axis=2, keepdims=True)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(largest / 127 >= np.finfo(np.float32).tiny, 127 / largest, 0)
    return np.rint(blocks * inverse).astype(np.int8).reshape(x.shape)


def dark(codes: Codes, run: int) -> float:
    """The share of runs of that many columns of codes (n, cols) that are zero together."""
    lit = codes != 0
    if run == 16:  # byte j of a half block of TQ2_0 holds weights j, j + 32, j + 64 and j + 96
        parts = lit.reshape(len(lit), -1, 4, 8, 4).any(axis=(2, 4))
    else:
        parts = lit.reshape(len(lit), -1, run).any(axis=2)
    return 1 - float(parts.mean())


def inputs(opened: Opened, tokens: list[int]) -> list[Floats]:
    """What each layer's down projection is multiplied with, (n, cols)."""
    engine, rows = opened.engine, Rows.of(tokens)
    hidden, found = engine.embed(tokens), []
    for index, layer in enumerate(opened.plan.layers):
        part = layer.feed_forward
        assert isinstance(part, GatedFeedForward | PlainFeedForward), "experts are not measured"
        found.append(engine.layer(index, hidden, rows, [part.down.weight])[part.down.weight])
    return found


def line(name: str, x: Floats) -> str:
    codes = rounded(x)
    shares = [float((x == 0).mean()), *(dark(codes, run) for run in (1, *RUNS))]
    return f"| {name} | " + " | ".join(f"{100 * share:.1f}%" for share in shares) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=1024, help="in contexts of the model's size")
    given = parser.parse_args()
    with Opened(given.model, 0, None) as opened:
        size = min(opened.plan.context_length, given.tokens)
        tokens = opened.tokenizer().encode(given.text.read_text("utf-8"))[: given.tokens]
        found = []
        for first in range(0, len(tokens) - size + 1, size):
            opened.engine.remove(0)
            found.append(inputs(opened, tokens[first : first + size]))
    print(f"{given.model.name}: {len(tokens):,} tokens, the second half measured\n")
    print("| layer | exactly 0 | rounded to 0 | " + " | ".join(map(str, RUNS)) + " |")
    print("|---" + "|--:" * (2 + len(RUNS)) + "|")
    for index, layer in enumerate(zip(*found, strict=True)):
        x = np.concatenate(layer)
        before, after = x[: len(x) // 2], x[len(x) // 2 :]
        order = np.argsort(-(before != 0).mean(axis=0), kind="stable")
        print(line(str(index), after), line(f"{index}, ordered", after[:, order]), sep="\n")


if __name__ == "__main__":
    main()
