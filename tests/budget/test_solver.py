"""The solver against trying every choice there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from trit.budget import _solver
from trit.budget._solver import ImpossibleError, Option, frontier, solve, undominated


def cheapest(items: list[list[Option]], budget: int) -> float | None:
    """The slow exact answer: every choice there is."""
    sizes, costs = np.zeros(1, np.int64), np.zeros(1)
    for options in items:
        sizes = (sizes[:, None] + [option.size for option in options]).reshape(-1)
        costs = (costs[:, None] + [option.cost for option in options]).reshape(-1)
    return float(costs[sizes <= budget].min()) if (sizes <= budget).any() else None


def random_items(random: np.random.Generator, whole: bool) -> list[list[Option]]:
    def cost() -> float:
        return float(random.integers(0, 20)) if whole else float(random.random())

    return [
        [Option(int(random.integers(0, 30)), cost()) for _ in range(random.integers(1, 6))]
        for _ in range(random.integers(1, 6))
    ]


@pytest.mark.parametrize("whole", [True, False])  # with whole numbers many choices cost the same
def test_as_good_as_the_best_of_all_choices(whole: bool) -> None:
    random = np.random.default_rng(0)
    solved = 0
    for _ in range(400):
        items, budget = random_items(random, whole), int(random.integers(0, 120))
        best = cheapest(items, budget)
        if best is None:
            with pytest.raises(ImpossibleError):
                solve(items, budget)
            continue
        found = solve(items, budget)
        picked = [options[i] for options, i in zip(items, found.chosen, strict=True)]
        assert found.cost == pytest.approx(best, rel=1e-12, abs=1e-12)
        assert found.cost == pytest.approx(sum(o.cost for o in picked))
        assert found.size == sum(o.size for o in picked) <= budget
        assert found.bound == found.cost
        solved += 1
    assert solved > 200


def model_like(items: int, seed: int = 0) -> list[list[Option]]:
    """Errors fall by 4 per bit, sensitivities differ by orders of magnitude."""
    random = np.random.default_rng(seed)
    bits = np.array([1.56, 2.06, 2.56, 3.06, 3.44, 4.25, 4.5, 5.5, 6.56, 8.5])
    made = []
    for index in range(items):
        weights = (256 * 1536, 1536 * 1536, 1536 * 8960)[index % 3]
        costs = np.exp(random.normal()) * 4.0**-bits * np.exp(random.normal(size=len(bits)) * 0.1)
        made.append(
            [Option(int(weights * b / 8), float(c)) for b, c in zip(bits, costs, strict=True)]
        )
    return made


@pytest.mark.parametrize("bits", [1.7, 2.3, 3.5, 4.5, 7.0])
def test_fills_the_budget_of_a_model_and_knows_it_is_best(bits: float) -> None:
    items = model_like(196)
    weights = sum(options[-1].size for options in items) * 8 / 8.5
    budget = int(weights * bits / 8)
    found = solve(items, budget)
    assert 0.998 * budget < found.size <= budget
    assert found.bound == found.cost


def test_says_so_when_it_gave_up_being_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_solver, "STATES", 4)
    random = np.random.default_rng(1)
    loose = 0
    for _ in range(50):
        items = [
            [Option(int(random.integers(0, 1000)), float(random.random())) for _ in range(6)]
            for _ in range(7)
        ]
        budget = int(random.integers(2600, 4500))
        best = cheapest(items, budget)
        assert best is not None
        found = solve(items, budget)
        assert found.size <= budget
        assert found.bound <= best + 1e-12
        assert found.cost >= best - 1e-12
        loose += found.bound < found.cost
    assert loose > 0


def test_dominated_options_go() -> None:
    options = [Option(5, 1.0), Option(3, 2.0), Option(4, 2.0), Option(5, 0.5), Option(9, 0.5)]
    assert undominated(options) == [1, 3]


def test_frontier_falls_and_is_reached() -> None:
    items = model_like(12)
    curve = frontier(items)
    assert len(curve) > 50
    assert all(a[0] < b[0] and a[1] >= b[1] for a, b in itertools.pairwise(curve))
    for size, cost in curve[:: len(curve) // 7]:
        assert solve(items, size).cost == pytest.approx(cost)
