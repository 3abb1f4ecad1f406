"""Choose one option per item so that the costs are least and the sizes fit: exactly.

A multiple-choice knapsack. With a price λ per byte every item can choose alone, which bounds what
any solution costs from below (Lagrange); the best λ gives a solution that nearly fills the budget.
An option whose best possible total, by that bound, is worse than a solution already known can be
in no better one and goes. For what remains, items are added one by one; of all partial choices
those are kept that no other beats in both size and cost, and that the bound does not rule out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]

STATES = 1 << 20  # partial choices kept; beyond, sizes are rounded up to merge some
SLACK = 1e-12  # relative: sums of the same costs in another order differ by less


@dataclass(frozen=True)
class Option:
    """What an item may be: `size` in bytes, `cost` in any unit, both ≥ 0."""

    size: int
    cost: float


@dataclass(frozen=True)
class Solution:
    """`chosen` (items,): which option of each; `bound`: no choice that fits costs less."""

    chosen: tuple[int, ...]
    size: int
    cost: float
    bound: float


class ImpossibleError(ValueError):
    """Even the smallest options are larger than the budget."""


def undominated(options: Sequence[Option]) -> list[int]:
    """Indices of the options that are larger than another only where they cost less, by size."""
    order = sorted(range(len(options)), key=lambda i: (options[i].size, options[i].cost))
    kept: list[int] = []
    for index in order:
        if not kept or options[index].cost < options[kept[-1]].cost:
            kept.append(index)
    return kept


def solve(items: Sequence[Sequence[Option]], budget: int) -> Solution:
    """The choice of least cost whose sizes sum to at most `budget`; ImpossibleError if none does.

    Of choices that cost the same, one of the smaller ones. Exact, `cost` = `bound`, unless more
    than STATES partial choices had to be told apart.
    """
    kept = [undominated(options) for options in items]
    sizes = [np.array([o[i].size for i in k], np.int64) for o, k in zip(items, kept, strict=True)]
    costs = [np.array([o[i].cost for i in k], float) for o, k in zip(items, kept, strict=True)]
    if sum(int(each[0]) for each in sizes) > budget:
        raise ImpossibleError(f"{budget} bytes do not hold even the smallest options")
    price, bound, first = _lagrange(sizes, costs, budget)
    first = _filled(sizes, costs, first, budget)
    best = _total(costs, first)
    chosen, exact = first, True
    if best > bound + SLACK * abs(best):
        found, exact = _search(sizes, costs, budget, price, bound, best)
        if found is not None and _total(costs, found) < best:
            chosen = found
    answer = tuple(kept[item][option] for item, option in enumerate(chosen))
    cost = _total(costs, chosen)
    size = sum(int(each[option]) for each, option in zip(sizes, chosen, strict=True))
    return Solution(answer, size, cost, cost if exact else min(bound, cost))


def frontier(items: Sequence[Sequence[Option]]) -> list[tuple[int, float]]:
    """(size, cost) of the choices that some price per byte makes best, the smallest first."""
    steps: list[tuple[float, int, float]] = []
    size, cost = 0, 0.0
    for options in items:
        hull = _hull([options[i] for i in undominated(options)])
        size, cost = size + hull[0].size, cost + hull[0].cost
        for before, after in pairwise(hull):
            larger, saved = after.size - before.size, before.cost - after.cost
            steps.append((saved / larger, larger, saved))
    points = [(size, cost)]
    for _, larger, saved in sorted(steps, reverse=True):
        size, cost = size + larger, cost - saved
        points.append((size, max(cost, 0.0)))
    return points


def _hull(options: Sequence[Option]) -> list[Option]:
    """The lower convex hull of undominated options in order of size."""
    hull: list[Option] = []
    for option in options:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], option):
            hull.pop()
        hull.append(option)
    return hull


def _slope(one: Option, two: Option) -> float:
    return (two.cost - one.cost) / (two.size - one.size)


def _total(costs: Sequence[Doubles], chosen: Sequence[int]) -> float:
    return float(sum(float(each[option]) for each, option in zip(costs, chosen, strict=True)))


def _lagrange(
    sizes: Sequence[Longs], costs: Sequence[Doubles], budget: int
) -> tuple[float, float, list[int]]:
    """The price per byte with the best bound, that bound, and a choice that fits."""

    def at(price: float) -> tuple[list[int], int, float]:
        chosen = [int(np.argmin(c + price * s)) for s, c in zip(sizes, costs, strict=True)]
        size = sum(int(s[i]) for s, i in zip(sizes, chosen, strict=True))
        total = sum(
            float(c[i] + price * s[i]) for s, c, i in zip(sizes, costs, chosen, strict=True)
        )
        return chosen, size, total - price * budget

    chosen, size, bound = at(0.0)
    if size <= budget:
        return 0.0, bound, chosen
    smallest = [0] * len(sizes)
    steps = zip(sizes, costs, strict=True)
    low, high = 0.0, max(float((c[0] - c[-1]) / max(s[-1] - s[0], 1)) for s, c in steps)
    high = max(high, 1e-300)
    while at(high)[1] > budget:  # a steeper step within an item than over all of it
        high *= 2
    best, fits = (high, at(high)[2]), at(high)[0]
    for _ in range(200):
        price = (low + high) / 2
        chosen, size, bound = at(price)
        if bound > best[1]:
            best = price, bound
        if size <= budget:
            high, fits = price, chosen
        else:
            low = price
        if high - low <= 1e-15 * high:
            break
    return best[0], best[1], fits if fits else smallest


def _filled(
    sizes: Sequence[Longs], costs: Sequence[Doubles], chosen: Sequence[int], budget: int
) -> list[int]:
    """`chosen`, with what is left of the budget spent on single steps, the most worth first."""
    chosen = list(chosen)
    left = budget - sum(int(s[i]) for s, i in zip(sizes, chosen, strict=True))
    while True:
        best = (0.0, -1, -1)
        for item, (s, c) in enumerate(zip(sizes, costs, strict=True)):
            now = chosen[item]
            for option in range(now + 1, len(s)):
                if s[option] - s[now] > left:
                    break
                if c[now] - c[option] > best[0]:
                    best = (float(c[now] - c[option]), item, option)
        if best[1] < 0:
            return chosen
        _, item, option = best
        left -= int(sizes[item][option] - sizes[item][chosen[item]])
        chosen[item] = option


@dataclass
class _Stage:
    """Partial choices after an item: `parent` among those before it, `option` of the item."""

    parent: NDArray[np.int32]
    option: NDArray[np.uint8]


def _search(
    sizes: Sequence[Longs],
    costs: Sequence[Doubles],
    budget: int,
    price: float,
    bound: float,
    best: float,
) -> tuple[list[int] | None, bool]:
    """A choice that costs less than `best`, None if there is none; and whether that is certain."""
    allowed = best - bound + SLACK * abs(best)  # by how much options may be off their best
    exact = True
    reduced = [c + price * s for s, c in zip(sizes, costs, strict=True)]
    order = sorted(range(len(sizes)), key=lambda i: -_open(reduced[i], allowed))
    size, cost, off = np.zeros(1, np.int64), np.zeros(1), np.zeros(1)
    stages: list[_Stage] = []
    smallest_after = np.cumsum([0] + [int(sizes[i][0]) for i in reversed(order)])[::-1]
    for place, item in enumerate(order):
        extra = reduced[item] - reduced[item].min()
        open_ = np.flatnonzero(extra <= allowed)
        new_size = (size[None, :] + sizes[item][open_][:, None]).reshape(-1)
        new_cost = (cost[None, :] + costs[item][open_][:, None]).reshape(-1)
        new_off = (off[None, :] + extra[open_][:, None]).reshape(-1)
        parent = np.tile(np.arange(len(size), dtype=np.int32), len(open_))
        option = np.repeat(open_.astype(np.uint8), len(size))
        fits = (new_off <= allowed) & (new_size + smallest_after[place + 1] <= budget)
        keep = np.flatnonzero(fits)
        keep = keep[np.lexsort((new_cost[keep], new_size[keep]))]
        least = np.minimum.accumulate(new_cost[keep])
        better = np.ones(len(keep), bool)
        better[1:] = new_cost[keep][1:] < least[:-1]
        keep = keep[better]
        if len(keep) > STATES:
            keep, exact = keep[:: len(keep) // STATES + 1], False
        if not len(keep):
            return None, exact
        size, cost, off = new_size[keep], new_cost[keep], new_off[keep]
        stages.append(_Stage(parent[keep], option[keep]))
    at = int(np.argmin(cost))
    chosen = [0] * len(order)
    for stage, item in zip(reversed(stages), reversed(order), strict=True):
        chosen[item], at = int(stage.option[at]), int(stage.parent[at])
    return chosen, exact


def _open(reduced: Doubles, allowed: float) -> int:
    """How many options of an item are still possible."""
    return int((reduced - reduced.min() <= allowed).sum())
