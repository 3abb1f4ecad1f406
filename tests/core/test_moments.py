"""Sums of squares and Gram matrices: right, the same bits on every ISA and number of threads."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from small_plan import Parts, small_plan

from trit.engine import GRAM_BLOCK, Engine
from trit.errors import UsageError

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


@pytest.mark.parametrize("cols", COLUMNS)
@pytest.mark.parametrize("rows", ROWS)
def test_squares(engine: Callable[..., Engine], isa: str, rows: int, cols: int) -> None:
    """Each sum is that of float64 in the order of the rows, whatever the calls."""
    x = inputs(rows, cols)
    expected = np.zeros((1, cols))
    for row in x.astype(np.float64):
        expected[0] += row * row
    for threads, cut in ((1, rows), (3, max(1, rows // 3))):
        sums = np.zeros((1, cols))
        for first in range(0, rows, cut):
            engine(isa, threads).add_squares(x[first : first + cut], sums)
        assert np.array_equal(sums, expected)


def test_squares_of_groups(engine: Callable[..., Engine], isa: str) -> None:
    x, random = inputs(100, 70), np.random.default_rng(1)
    groups = random.choice([0, 1, 4], 100).astype(np.int32)
    sums = np.zeros((5, 70))
    engine(isa, 2).add_squares(x, sums, groups)
    for group in range(5):
        expected = np.square(x[groups == group].astype(np.float64)).sum(axis=0)
        np.testing.assert_allclose(sums[group], expected, rtol=1e-14)
    assert not sums[2:4].any()


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
    groups = np.zeros(4, np.int32)
    wrong: list[tuple[NDArray[np.float64], NDArray[np.int32] | None]] = [
        (np.zeros((1, 5)), None),
        (np.zeros((2, 6)), None),
        (np.zeros((1, 6)), groups[:3]),
        (np.zeros((1, 6)), groups + 1),
        (np.zeros((1, 6)), groups - 1),
        (np.zeros((0, 6)), groups),
    ]
    for sums, given in wrong:
        with pytest.raises(UsageError):
            core.add_squares(x, sums, given)
    for shape in ((6, 5), (5, 5), (7, 6)):
        with pytest.raises(UsageError):
            core.add_gram(x, np.zeros(shape, np.float32))
