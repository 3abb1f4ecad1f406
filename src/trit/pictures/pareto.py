"""What is good against what it takes: points, and the frontier of those that nothing beats.

Quality is drawn as KL divergence on a log axis against GiB, speed as tokens per second against GiB.
A point is on the frontier where no other is at least as good in both and better in one (V. Pareto,
1906).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trit.pictures import style

POINT, LINE = "#1f83c6", "#d55e00"  # blue and vermillion: told apart by all eyes, light and dark


@dataclass(frozen=True)
class Point:
    """A model: its name, size in bytes, and a figure with the ends of its bar."""

    label: str
    size: int
    value: float
    low: float
    high: float


def frontier(points: Sequence[Point], less_is_better: bool) -> list[Point]:
    """The points that no other beats, by size."""
    sign = 1.0 if less_is_better else -1.0
    found: list[Point] = []
    for point in sorted(points, key=lambda each: (each.size, sign * each.value)):
        if not found or sign * point.value < sign * found[-1].value:
            found.append(point)
    return found


def figure(
    points: Sequence[Point], title: str, label: str, *, less_is_better: bool, log: bool, bars: str
) -> Any:
    """The picture; `bars` says what they are."""
    from matplotlib.figure import Figure

    with style():
        drawn = Figure(figsize=(4.8, 3.7), layout="constrained")
        axes = drawn.add_subplot()
        best = frontier(points, less_is_better)
        unit, unit_name = _unit(points)
        axes.plot(
            [p.size / unit for p in best], [p.value for p in best], color=LINE, linewidth=1.2,
            linestyle="--", label="frontier: nothing is smaller and better", zorder=1,
        )  # fmt: skip
        for point in points:
            _mark(axes, point, unit, point in best)
        if log:
            axes.set_yscale("log")
            _readable_ticks(axes)
        axes.set(title=title, xlabel=f"size, {unit_name}", ylabel=label)
        axes.margins(x=0.22, y=0.14)  # room for names
        axes.grid(alpha=0.25, linewidth=0.6)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.plot([], [], "o", color=POINT, markersize=6, label=f"a file; bars: {bars}")
        drawn.legend(loc="outside lower center", ncols=1, fontsize=8, frameon=False)
        return drawn


def _unit(points: Sequence[Point]) -> tuple[int, str]:
    large = max(point.size for point in points) >= 2**30
    return (2**30, "GiB") if large else (2**20, "MiB")


def _mark(axes: Any, point: Point, unit: int, best: bool) -> None:
    at = point.size / unit
    axes.errorbar(
        [at], [point.value], yerr=[[point.value - point.low], [point.high - point.value]],
        fmt="o", color=POINT, markersize=7, capsize=3, linewidth=1,
        markerfacecolor=POINT if best else "none", zorder=2,
    )  # fmt: skip
    axes.annotate(
        point.label, (at, point.value), xytext=(7, 7), textcoords="offset points", fontsize=8
    )


def _readable_ticks(axes: Any) -> None:
    """0.03 rather than 3 × 10⁻²."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
