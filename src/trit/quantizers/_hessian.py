"""H, the damped Gram matrix of inputs, and its factors: what rounding with error feedback wants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit import _core, engine
from trit.errors import TritError, UsageError
from trit.machine.processors import default_threads

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]

# Of each entry on G's diagonal, added to it: correlations shrink by 1 / (1 + share). A share of
# their mean, which is usual, would be far more than most entries where a few inputs are huge, and
# they often are. Of inputs that do not go together at all, chance alone spreads G's eigenvalues by
# ±2·√(columns / tokens) of their mean (Marčenko and Pastur), and so much is added
# (docs/log.md, 2026-12-01).
DAMPING = 0.1  # the least
CHANCE = 2.0  # times the root of columns per token
FLOOR = 1e-6  # of the mean, added to all: for columns that never fire
MOST_DAMPING = 10.0
COLUMNS = 32  # a factor has them by panels of so many
TILE = 64  # columns of the pieces that a matrix is factorized in


@dataclass(frozen=True)
class Factor:
    """H = U·D·Uᵀ, G with more on its diagonal, for all the weights that share an input.

    panels     float32 (cols / 32, cols, 32): U, unit upper triangular: [j // 32, k, j % 32] is U_kj
    variances  float32 (cols,): D, of each column given those rounded after it
    order      int32 (cols,): the columns in the order in which they are rounded
    damping    the share of the diagonal that was added to it
    """

    panels: Floats
    variances: Floats
    order: Ints
    damping: float

    def columns(self, start: int, stop: int) -> Floats:
        """U[:stop, start:stop], float32 (stop, stop - start)."""
        first, last = start // COLUMNS, -(-stop // COLUMNS)
        wide = np.concatenate(list(self.panels[first:last, :stop]), axis=1)
        return wide[:, start - first * COLUMNS : stop - first * COLUMNS]

    @property
    def importance(self) -> Floats:
        """D in the order of the columns: what an error costs that later columns cannot undo."""
        found = np.empty_like(self.variances)
        found[self.order] = self.variances
        return found


@dataclass(frozen=True)
class Hessian:
    """The damped G, for all the weights that share an input and formats of one block.

    gram      float32 (cols / 32, cols, 32): G_kj at [j // 32, k, j % 32]
    damping   float32 (cols,): what is added to its diagonal
    factors   of it, and of it with more and more damping, which are to be tried too
    """

    gram: Floats
    damping: Floats
    factors: Sequence[Factor]


def hessian(
    gram: Floats, tokens: int, block: int, threads: int | None = None, isa: str | None = None
) -> Hessian:
    """What `choose` wants for formats with such blocks, of a Gram matrix of so many tokens.

    Errors as for `factorize`.
    """
    shares = _shares(len(gram), tokens)
    factors = [factorize(gram, share, block, threads, isa) for share in shares]
    panels = gram.reshape(len(gram), -1, COLUMNS).transpose(1, 0, 2)
    diagonal = gram.diagonal()
    added = factors[0].damping * diagonal + FLOOR * _mean(diagonal)
    return Hessian(np.ascontiguousarray(panels, np.float32), added.astype(np.float32), factors)


def _shares(cols: int, tokens: int) -> list[float]:
    least = damping(cols, tokens)
    return [share for share in (least, 3 * least, 9 * least) if share <= max(least, 2.0)]


def factorize(
    gram: Floats,
    share: float = DAMPING,
    block: int | None = None,
    threads: int | None = None,
    isa: str | None = None,
) -> Factor:
    """The factor of a Gram matrix (cols, cols), damped; more so where it is nearly singular.

    share   of the diagonal, added to it
    block   columns that a format rounds together: those of the most energy come first, and
            first within each, while there is most to undo it. None: as they stand
    cols is a multiple of 32. Columns that never fire are rounded as they are.

    UsageError for a matrix of another size or with negative entries on its diagonal; TritError for
    one that is not finite or not positive definite.
    """
    cols = len(gram)
    if gram.shape != (cols, cols) or cols == 0 or cols % COLUMNS:
        raise UsageError(
            f"a Gram matrix has shape {gram.shape}; expected a square of a multiple of {COLUMNS}."
        )
    diagonal = gram.diagonal()
    _check(gram, diagonal)
    order, floor = _order(diagonal, block), FLOOR * _mean(diagonal)
    gram = np.ascontiguousarray(gram, dtype=np.float32)
    for more in dict.fromkeys((share, min(10 * share, MOST_DAMPING), MOST_DAMPING)):
        found = _core.gptq_factor(
            gram, order, more, floor, threads or default_threads(), isa or engine.isa()
        )
        if found is not None:
            return Factor(*found, order, more)
    raise TritError(
        "a Gram matrix is not positive definite, even with ten times its diagonal added: it is "
        "no sum of x xᵀ. Measure it again."
    )


def _mean(diagonal: Floats) -> float:
    """1 where nothing ever fires: all columns are alike then."""
    return float(diagonal.mean(dtype=np.float64)) or 1.0


def _order(diagonal: Floats, block: int | None) -> Ints:
    """Blocks by the largest entry of each, and the columns of each by theirs."""
    columns = np.arange(len(diagonal), dtype=np.int32)
    if block is None or len(diagonal) % block:
        return columns
    blocks = diagonal.reshape(-1, block)
    within = np.argsort(-blocks, axis=1, kind="stable")
    ordered = np.take_along_axis(columns.reshape(-1, block), within, axis=1)
    return ordered[np.argsort(-blocks.max(axis=1), kind="stable")].reshape(-1)


def damping(cols: int, tokens: int) -> float:
    """The share that is added to the diagonal of a Gram matrix of so many columns and inputs."""
    return min(max(DAMPING, CHANCE * math.sqrt(cols / max(tokens, 1))), MOST_DAMPING)


def factor_bytes(cols: int, tokens: int) -> int:
    """Memory that `hessian` takes, the Gram matrix not counted.

    A triangle in double for the last factor; G in panels comes when that is gone, and is smaller.
    """
    tiles = -(-cols // TILE) * TILE
    return tiles * (tiles + TILE) // 2 * 8 + len(_shares(cols, tokens)) * cols * cols * 4


def _check(gram: Floats, diagonal: Floats) -> None:
    for row, values in enumerate(gram):  # no copy of the whole matrix
        bad = ~np.isfinite(values)
        if bad.any():
            column = int(bad.argmax())
            raise TritError(
                f"a Gram matrix has {values[column]} at row {row}, column {column}; expected "
                "finite numbers. Measure it again."
            )
    if (diagonal < 0).any():
        at = int((diagonal < 0).argmax())
        raise UsageError(
            f"a Gram matrix has {diagonal[at]} on its diagonal at {at}; a sum of squares "
            "is not negative."
        )
