"""Whether the parts add up: a few whole models measured, and predictions corrected by them.

The loss of a mixture is predicted as the sum of what its tensors lose alone. That holds while all
losses are small; where many are large they help or harm each other. So mixtures of a few sizes are
measured, and a prediction is read off a line through what was predicted and measured for them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trit import formats
from trit.budget._solver import Option, solve
from trit.files._tensor import TensorInfo

LOSSES = (0.03, 0.2, 1.0)  # nats: what the mixtures measured are predicted to lose, about


def mixtures(
    shapes: Mapping[str, tuple[int, ...]],
    costs: Mapping[str, Mapping[str, float]],
) -> list[tuple[float, dict[str, str]]]:
    """For each of LOSSES the mixture of best formats that is predicted to lose about that much.

    costs   by tensor and format. Returns what is predicted, and the formats; none twice.
    """
    names = list(costs)
    menus = [list(costs[name]) for name in names]
    items = [
        [
            Option(TensorInfo(name, shapes[name], formats.get(f)).nbytes, costs[name][f])
            for f in menu
        ]
        for name, menu in zip(names, menus, strict=True)
    ]
    low = sum(min(o.size for o in options) for options in items)
    high = sum(max(o.size for o in options) for options in items)
    found: list[tuple[float, dict[str, str]]] = []
    for loss in LOSSES:
        small, large = low, high
        best = solve(items, large)
        while large - small > high // 1000:
            middle = (small + large) // 2
            tried = solve(items, middle)
            if tried.cost <= loss:
                best, large = tried, middle
            else:
                small = middle
        made = {n: m[i] for n, m, i in zip(names, menus, best.chosen, strict=True)}
        if all(made != other for _, other in found):
            found.append((best.cost, made))
    return found


def corrected(cost: float, known: Sequence[Mapping[str, Any]]) -> float:
    """What a sum of costs means, by the mixtures `predicted` and `measured`.

    Straight in logarithms between them; beyond them by the factor of the nearest.
    """
    points = sorted(
        (p["predicted"], p["measured"]) for p in known if min(p["predicted"], p["measured"]) > 0
    )
    if not points or cost <= 0:
        return cost
    x = np.log([point[0] for point in points])
    y = np.maximum.accumulate(np.log([point[1] for point in points]))
    at = np.log(cost)
    beyond = min(at - x[0], 0.0) + max(at - x[-1], 0.0)
    return float(np.exp(np.interp(at, x, y) + beyond))
