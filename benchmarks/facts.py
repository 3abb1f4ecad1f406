"""What do quants of one model forget, by bits per weight?

    python benchmarks/facts.py REFERENCE.gguf QUANT.gguf … [--threads N] [--state FILE]

Asks each file the facts of `trit eval --facts` once and prints docs/quality.md's table: the share
of right answers, its change from the reference and that of the margin, and both for the rare third
less the frequent third; every interval is of 95%. Margins are kept in the state file, by name and
size of the file, with which an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trit.evaluate._fact_items import Fact, Facts, load
from trit.evaluate._interval import Interval
from trit.evaluate._opened import Opened
from trit.evaluate.recall import CTX, Answers, ask, groups, rare_first

HEAD = (
    "| file | bits per weight | right, % | change, points | lost / won | margin, change in nats "
    "| rare − frequent: right, points | margin, nats |\n|---|--:|--:|--:|--:|--:|--:|--:|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--state", type=Path)
    given = parser.parse_args()
    facts = load()
    known = json.loads(given.state.read_text()) if given.state and given.state.exists() else {}
    print(HEAD)
    base: Answers | None = None
    for path in given.files:
        key = f"{path.name} {path.stat().st_size} {facts.sha256}"
        if key not in known:
            known[key] = measure(path, facts, given.threads)
            if given.state:
                given.state.write_text(json.dumps(known))
        margin, by_byte = (np.array(known[key][name]) for name in ("margin", "by_byte"))
        found = Answers(margin, margin > 0, by_byte > 0)
        base = base or found
        print(row(path.stem, known[key]["bits"], facts.items, found, base), flush=True)


def measure(path: Path, facts: Facts, threads: int | None) -> dict[str, object]:
    with Opened(path, CTX, threads) as model:
        found = ask(model, facts.items)
        return {
            "bits": 8 * model.weight_bytes / model.parameters,
            "margin": found.margin.tolist(),
            "by_byte": found.right_by_byte.astype(int).tolist(),
        }


def row(name: str, bits: float, items: Sequence[Fact], ours: Answers, base: Answers) -> str:
    everything = groups(items, ours, base)[0]
    cells = [name, f"{bits:.2f}", shown(everything.right, 100, 1, sign="")]
    if ours is base:
        return "| " + " | ".join([*cells, *"–––––"]) + " |"
    assert everything.change is not None and everything.margin_change is not None
    right, margin = rare_first(items, ours, base)
    cells += [
        shown(everything.change, 100, 1),
        f"{everything.lost} / {everything.won}",
        shown(everything.margin_change, 1, 3),
        shown(right, 100, 1),
        shown(margin, 1, 3),
    ]
    return "| " + " | ".join(cells) + " |"


def shown(value: Interval, factor: float, digits: int, sign: str = "+") -> str:
    parts = (f"{factor * p:{sign}.{digits}f}" for p in (value.value, value.low, value.high))
    return "{} ({} … {})".format(*parts)


if __name__ == "__main__":
    main()
