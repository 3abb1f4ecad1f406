"""The figures of benchmarks/peers.py, and how they are printed.

Figures are medians over the rounds; a ratio is the median of the rounds' ratios, trit over the
peer; a share is that part of the machine's limit which trit reached.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Row:
    """One test of one model: tokens per second of every engine, round by round."""

    model: str
    test: str
    tokens: int
    settings: dict[str, str]  # of each engine
    cost: float | None  # bytes or operations per token; None: no limit applies
    samples: dict[str, list[float]] = field(default_factory=dict)
    limits: list[float] = field(default_factory=list)  # bytes or operations per second
    idle_share: float = 0.0  # the most that waiting processes used, of a core

    def median(self, engine: str) -> float:
        return statistics.median(self.samples[engine])

    def ratios(self, peer: str) -> list[float]:
        return [a / b for a, b in zip(self.samples["trit"], self.samples[peer], strict=True)]

    def share(self, engine: str) -> float | None:
        if self.cost is None or not self.limits:
            return None
        return self.median(engine) * self.cost / statistics.median(self.limits)

    def to_dict(self) -> dict[str, Any]:
        peers = [name for name in self.samples if name != "trit"]
        return {
            "model": self.model,
            "test": self.test,
            "tokens": self.tokens,
            "settings": self.settings,
            "tokens_per_second": self.samples,
            "median": {name: self.median(name) for name in self.samples},
            "ratio": {name: statistics.median(self.ratios(name)) for name in peers},
            "ratios": {name: self.ratios(name) for name in peers},
            "limit": statistics.median(self.limits) if self.limits else None,
            "limits": self.limits,
            "share": self.share("trit"),
            "idle_share": self.idle_share,
        }


def table(rows: list[Row]) -> str:
    """Markdown within 80 columns: a table for each test."""
    tests = dict.fromkeys(row.test for row in rows)
    return "\n\n".join(_table([row for row in rows if row.test == test]) for test in tests)


def _table(rows: list[Row]) -> str:
    peers = [name for name in rows[0].samples if name != "trit"]
    head = ["model", "trit"]
    for peer in peers:
        head += [peer.removesuffix("_llama.cpp"), "ratio"]
    lines = [[*head, "limit"]]
    for row in rows:
        cells = [row.model, _figure(row.median("trit"))]
        for peer in peers:
            cells += [_figure(row.median(peer)), f"{statistics.median(row.ratios(peer)):.2f}"]
        share = row.share("trit")
        lines.append([*cells, "" if share is None else f"{100 * share:.0f}%"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    first = rows[0]
    unit = "jobs/s" if first.test == "quantize" else f"{first.tokens} tokens, tokens/s"
    padded = (
        [cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])]
        for cells in (lines[0], rule, *lines[1:])
    )
    return "\n".join([f"{first.test}, {unit}", "", *(f"| {' | '.join(each)} |" for each in padded)])


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
