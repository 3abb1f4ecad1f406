"""Sums of squares and Gram matrices: right, the same bits on every ISA and number of threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from small_plan import Parts, small_plan

from trit.calibrate._inputs import shared
from trit.engine import GRAM_BLOCK, Engine, Rows
from trit.errors import UsageError
from trit.plan import Linear

Floats = NDArray[np.float32]

COLUMNS = (1, 32, 33, 128, 200, 300)
ROWS = (1, 7, 256, 300)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Engine]:
    def make(isa: str, threads: int = 1) -> Engine:
        monkeypatch.setenv("TRIT_ISA", isa)
        plan, tensors = small_plan(Parts(width=32, inner=32, head_dim=8, vocab=8, layers=1))
        return Engine(plan, tensors, threads=threads, ctx=64)

    return make


def inputs(rows: int, cols: int) -> Floats:
    """Columns of very different sizes, one of them zero."""
    random = np.random.default_rng(rows + cols)
    spread = np.exp(random.standard_normal(cols) * 3)
    spread[cols // 2] = 0 if cols > 1 else 1
    return (random.standard_normal((rows, cols)) * spread).astype(np.float32)


PLANS = [
    Parts(width=96, inner=200, head_dim=8, extras=True),
    Parts(width=96, inner=128, head_dim=8, formats=("q8_0", "f16"), experts=6, top_k=2),
]


@pytest.mark.parametrize("parts", PLANS, ids=["dense", "experts"])
@pytest.mark.parametrize("count", [1, 90])
def test_squares_of_the_inputs(
    monkeypatch: pytest.MonkeyPatch, isa: str, parts: Parts, count: int
) -> None:
    """To the bit what float64 gives for the tapped inputs, row after row; in one call or more."""
    monkeypatch.setenv("TRIT_ISA", isa)
    plan, tensors = small_plan(parts)
    layer = plan.layers[0]
    names = {name: each for each in shared(layer) for name in each.names}
    tokens = np.random.default_rng(0).integers(0, parts.vocab, count).tolist()
    found = []
    for threads, cut in ((1, count), (3, max(1, count // 4))):
        engine = Engine(plan, tensors, threads=threads, ctx=128)
        sums = {name: np.zeros((each.matrices, each.cols)) for name, each in names.items()}
        exact = {name: np.zeros((each.matrices, each.cols)) for name, each in names.items()}
        for first in range(0, count, cut):
            rows = Rows.of(tokens[first : first + cut], first)
            chosen = np.empty((len(rows.tokens), parts.top_k), np.int32)
            experts = chosen if parts.experts else None
            hidden = engine.embed(rows.tokens.tolist())
            taps = engine.layer(0, hidden, rows, list(names), experts, sums)
            for name, x in taps.items():
                groups = chosen.reshape(-1) if x.ndim == 3 else np.zeros(len(x), np.int32)
                for group, row in zip(groups, x.reshape(len(groups), -1), strict=True):
                    exact[name][group] += row.astype(np.float64) ** 2
        assert all(np.array_equal(sums[name], exact[name]) for name in names)
        assert all(each.any() for each in sums.values())
        found.append(sums)
    assert all(np.array_equal(found[0][name], found[1][name]) for name in names)


def test_a_matrix_that_several_linears_view_counts_once(isas: list[str]) -> None:
    plan, tensors = small_plan(Parts(width=32, inner=32, head_dim=8, vocab=8, layers=1))
    part = plan.layers[0].mixer
    view = Linear(part.q.weight, part.k.rows, part.k.cols)
    fused = replace(plan.layers[0], mixer=replace(part, k=view, v=view))
    engine = Engine(replace(plan, layers=(fused,)), tensors, ctx=64)
    sums = np.zeros((1, 32))
    x = engine.layer(0, engine.embed([1, 2, 3]), Rows.of([1, 2, 3]), [part.q.weight], None,
                     {part.q.weight: sums})[part.q.weight]  # fmt: skip
    np.testing.assert_allclose(sums[0], np.square(x.astype(np.float64)).sum(axis=0), rtol=1e-15)


@pytest.mark.parametrize("cols", COLUMNS)
@pytest.mark.parametrize("rows", ROWS)
def test_gram(engine: Callable[..., Engine], isa: str, rows: int, cols: int) -> None:
    x, before = inputs(rows, cols), np.full((cols, cols), 0.5, np.float32)
    gram = before.copy()
    engine(isa, 2).add_gram(x, gram)
    wide = x.astype(np.float64)
    # Of a chain of n fused multiply-adds: at most n half units in the last place of Σ |x y|.
    most = (rows + 3) * 2.0**-24 * (np.abs(wide).T @ np.abs(wide) + 0.5)
    upper = np.triu_indices(cols)
    assert (np.abs(gram - (wide.T @ wide + 0.5)) <= most)[upper].all()
    below = np.subtract.outer(np.arange(cols), np.arange(cols)) >= GRAM_BLOCK
    assert (gram[below] == before[below]).all()
    near = (
        ~below
        & ~below.T
        & (np.arange(cols)[:, None] // GRAM_BLOCK == np.arange(cols) // GRAM_BLOCK)
    )
    assert (gram == gram.T)[near].all()


def test_gram_has_the_same_bits_everywhere(engine: Callable[..., Engine], isas: list[str]) -> None:
    x = inputs(300, 300)
    found = []
    for isa in isas:
        for threads in (1, 3):
            gram = np.zeros((300, 300), np.float32)
            engine(isa, threads).add_gram(x, gram)
            found.append(gram)
    assert len(found) >= 2 and all(np.array_equal(found[0], each) for each in found)


def test_shapes_that_do_not_fit(engine: Callable[..., Engine], isas: list[str]) -> None:
    core, x = engine(isas[0]), inputs(4, 6)
    name = core.plan.layers[0].mixer.output.weight
    for sums in (np.zeros((1, 31)), np.zeros((2, 32)), np.zeros((0, 32))):
        with pytest.raises(UsageError):
            core.layer(0, core.embed([1]), Rows.of([1]), squares={name: sums})
    for shape in ((6, 5), (5, 5), (7, 6)):
        with pytest.raises(UsageError):
            core.add_gram(x, np.zeros(shape, np.float32))
