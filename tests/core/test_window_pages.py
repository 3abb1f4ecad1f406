"""Layers with a window let go of what no row to come sees: memory stays flat, results the same, and
a position whose window is gone is refused, never computed from something else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from small_plan import Parts, Tensors, small_plan

from trit.engine import PAGE, CacheFullError, Engine, Rows, WindowDroppedError
from trit.plan import Plan
from trit.runtime._prefixes import Held, Prefixes

Made = tuple[Plan, Tensors]

VOCAB, WINDOW, BATCH, CONTEXT = 50, 70, 48, 2048
SHAPE = Parts(
    ("q8_0",), width=64, inner=64, heads=2, kv_heads=1, head_dim=32, vocab=VOCAB, window=WINDOW,
    context=CONTEXT,
)  # fmt: skip
MIXED = small_plan(SHAPE)  # a layer with a window, one without
ALL = small_plan(replace(SHAPE, layers=1))
# What can be seen, the rows of a pass and those before it, and both ends of pages.
MOST_PAGES = (WINDOW + 2 * BATCH) // PAGE + 3


def engine(model: Made, cache_positions: int | None = None) -> Engine:
    plan, tensors = model
    return Engine(plan, tensors, 2, CONTEXT, batch=BATCH, cache_positions=cache_positions)


def text(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, count).tolist()


def run(one: Engine, tokens: list[int], start: int, sequence: int = 0) -> NDArray[np.float32]:
    rows = Rows.of(tokens[start:], start, sequence)
    return one.forward(rows, range(len(tokens) - start))


def kept(model: Made, tokens: list[int]) -> NDArray[np.float32]:
    """All logits, from an engine that runs layer after layer and lets go of nothing."""
    one = engine(model)
    hidden, rows = one.embed(tokens), Rows.of(tokens)
    for index in range(len(one.plan.layers)):
        one.layer(index, hidden, rows)
    assert one.keeps_from() == 0
    return one.head(hidden)


def test_memory_is_flat_and_results_are_the_same() -> None:
    tokens = text(CONTEXT)
    one = engine(ALL)
    found, sizes = [], []
    for end in range(128, CONTEXT + 1, 128):
        found.append(run(one, tokens[:end], one.length()))
        sizes.append(one.cache_bytes())
        assert one.cache_pages() <= MOST_PAGES
    assert sizes[4:] == sizes[4:5] * len(sizes[4:])
    assert np.concatenate(found).tobytes() == kept(ALL, tokens).tobytes()


def test_only_layers_with_a_window_let_go() -> None:
    tokens = text(1024)
    one, bytes_of = engine(MIXED), {}
    page = 2 * PAGE * 32 * 2  # keys and values of a layer, in halves
    for end in (512, 1024):
        run(one, tokens[:end], one.length())
        bytes_of[end] = one.cache_bytes()
    assert bytes_of[1024] - bytes_of[512] == 512 // PAGE * page
    assert bytes_of[1024] <= (1024 // PAGE + MOST_PAGES) * page
    one.remove()
    assert run(one, tokens, 0).tobytes() == kept(MIXED, tokens).tobytes()


def test_going_back() -> None:
    tokens = text(600)
    one, expected = engine(MIXED), kept(MIXED, tokens)
    run(one, tokens, 0)
    first = one.keeps_from()
    assert WINDOW <= first <= 600 - BATCH
    for position in (1, first - 1):
        for act in (
            lambda: one.remove(0, position),  # noqa: B023
            lambda: one.fork(0, 1, position),  # noqa: B023
            lambda: one.forward(Rows.of([1], position)),  # noqa: B023
        ):
            with pytest.raises(WindowDroppedError, match=f"position {position}: .* {first}"):
                act()
    with pytest.raises(WindowDroppedError, match="position 0"):
        one.forward(Rows.of([1], 0))
    assert (one.length(0), one.length(1)) == (600, 0)
    one.fork(0, 1, first)
    assert one.keeps_from(1) == first
    for sequence in (1, 0):
        one.remove(sequence, first)
        assert run(one, tokens, first, sequence).tobytes() == expected[first:].tobytes()
    one.remove(0)
    assert one.keeps_from() == 0
    assert run(one, tokens, 0).tobytes() == expected.tobytes()


def test_what_a_fork_holds_is_not_let_go_of_by_the_other() -> None:
    tokens = text(600)
    one, expected = engine(MIXED), kept(MIXED, tokens)
    run(one, tokens[:100], 0)
    one.fork(0, 1, 100)
    run(one, tokens, 100)
    assert one.keeps_from(0) > 100 and one.keeps_from(1) == 0
    one.remove(1, 50)
    assert run(one, tokens, 50, 1).tobytes() == expected[50:].tobytes()


@pytest.mark.parametrize("seed", range(4))
def test_any_cuts_and_forks(seed: int) -> None:
    """Whatever is not refused has the bits of a run that kept everything."""
    random = np.random.default_rng(seed)
    one = engine(MIXED)
    held: dict[int, list[int]] = {s: [] for s in range(3)}
    refused = 0
    for _ in range(40):
        a, b = (int(n) for n in random.choice(3, 2, replace=False))
        at = int(random.integers(0, len(held[a]) + 1))
        legal = at == 0 or at >= one.keeps_from(a)
        try:
            if random.random() < 0.5:
                one.fork(a, b, at)
                held[b] = held[a][:at]
            else:
                one.remove(a, at)
                held[a] = held[a][:at]
            assert legal
        except WindowDroppedError:
            assert not legal
            refused += 1
        new = held[a] + text(int(random.integers(1, 150)), int(random.integers(1 << 30)))
        if len(new) > 900:
            one.remove(a)
            held[a] = []
            continue
        found = run(one, new, len(held[a]), a)
        assert found.tobytes() == kept(MIXED, new)[len(held[a]) :].tobytes()
        held[a] = new
    assert refused


def test_a_bound_counts_what_is_held() -> None:
    """A sequence far beyond the bound goes on, since it holds no more than its window."""
    one = engine(ALL, MOST_PAGES * PAGE)
    tokens = text(800)
    for end in range(40, 800, 40):
        run(one, tokens[:end], one.length())
    with pytest.raises(CacheFullError):
        run(one, text(MOST_PAGES * PAGE), 0, 1)


def test_a_prefix_that_was_let_go_of_is_read_again() -> None:
    """Prefix reuse takes what a sequence can go on from, and nothing else."""
    one = engine(MIXED)
    prefixes = Prefixes(one, CONTEXT)
    tokens = text(600)
    sequence, count = prefixes.give(tokens, [])
    assert count == 0
    run(one, tokens, 0, sequence)
    prefixes.take(Held(sequence, tokens))
    first = one.keeps_from(sequence)
    for shared, reused in ((599, 599), (first, first), (first - 1, 0), (1, 0)):
        prompt = [*tokens[:shared], (tokens[shared] + 1) % VOCAB, 3]
        sequence, count = prefixes.give(prompt, [])
        assert count == reused
        assert run(one, prompt, count, sequence).tobytes() == kept(MIXED, prompt)[count:].tobytes()
        prefixes.take(Held(sequence, []))
