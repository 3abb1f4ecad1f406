"""Rounding with error feedback: what rounding a column does to the output, later columns undo.

With G = Σ x xᵀ of a matrix's inputs x, its output error is (w − v)·G·(w − v)ᵀ for each row w of
weights and v of values. Columns are rounded one after the other; the error of each is spread over
those not yet rounded, as the factorization H = U·D·Uᵀ of the damped G says
(core/quantizers/gptq.h); columns of much energy come first, as far as blocks let them. A block's
scales are searched as `rtn` does it, for the weights as they then are. Formats with codebooks have
their blocks rounded whole, and errors spread from block to block.

Feedback never looks back. So each code, scale and minimum is then set to what is best while all
others stay, some times over (core/quantizers/gptq_descent.h), but of formats with codebooks.

Feedback fits the text it was measured on, so it is no free gain: `choose` keeps it only where the
output error falls. The same bytes on every instruction set and for every number of threads.
Grids by groups, which folders have (_gptq_groups.py), are rounded in numpy by the same rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit import _core, engine, formats
from trit.errors import TritError, UnsupportedError, UsageError
from trit.files.quantized import Grid
from trit.formats import Format
from trit.machine.processors import default_threads
from trit.quantizers import _gptq_groups, _grids, _groups

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]

WRITTEN = _grids.SCALED | _grids.WHOLE
# Of each entry on G's diagonal, added to it: correlations shrink by 1 / (1 + share). A share of
# their mean, which is usual, would be far more than most entries where a few inputs are huge, and
# they often are. What few tokens say of many columns is more chance than fact, so the share grows
# with columns per token (docs/log.md, 2026-12-01).
DAMPING = 0.1  # the least
DAMPING_PER_COLUMN = 4.0  # times columns, over tokens
FLOOR = 1e-6  # of the mean, added to all: for columns that never fire
MOST_DAMPING = 10.0
SWEEPS = 3  # of the descent over all columns
SETTINGS = (DAMPING, DAMPING_PER_COLUMN, SWEEPS)  # what the bytes depend on beside the inputs
TRIED_ROWS = 512
COLUMNS = 32  # a factor has them by panels of so many


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


@dataclass(frozen=True)
class Choice:
    """The better of two roundings.

    data         uint8 (rows, row_bytes)
    fed_back     whether it is that with error feedback
    loss         Σ over rows of (w − v)·H·(w − v)ᵀ with error feedback
    plain_loss   of the other
    """

    data: Bytes
    fed_back: bool
    loss: float
    plain_loss: float


@dataclass(frozen=True)
class GroupChoice:
    """The better of two roundings by groups; see Choice."""

    grid: Grid
    fed_back: bool
    loss: float
    plain_loss: float


def quantize(
    weights: Floats,
    format_name: str,
    gram: Floats,
    importance: Floats | None = None,
    threads: int | None = None,
    isa: str | None = None,
) -> Bytes:
    """Round weights (rows, cols) float32 onto a format's grid -> (rows, row_bytes) uint8.

    By feedback alone; `choose` improves what it gives.
    gram         float32 (cols, cols): Σ x xᵀ of the inputs, in any unit
    importance   (cols,) float32 for the search of scales; None: what the Gram matrix says
    threads      None: those the process may use
    isa          names an instruction set instead of the machine's best

    UnsupportedError for a format that is not written so, or blocks that do not fill `cols`;
    UsageError for a Gram matrix or importance of another size or with negative entries; TritError
    for one that is not finite or not positive definite.
    """
    factor = factorize(gram, threads=threads, isa=isa)
    return feed_back(weights, format_name, factor, importance, threads, isa)[0]


def choose(
    weights: Floats,
    format_name: str,
    hessian: Hessian,
    plain: Bytes,
    threads: int | None = None,
    isa: str | None = None,
) -> Choice:
    """Round with error feedback and descend, and keep that if it is better than `plain`, of `rtn`.

    Each factor is tried on some of the rows, and all are rounded with the best; the first says what
    is lost.
    """
    first, best = hessian.factors[0], hessian.factors[0]
    if len(hessian.factors) > 1:
        some = weights[:: -(-len(weights) // TRIED_ROWS)]
        lost = []
        for each in hessian.factors:
            tried, _ = feed_back(some, format_name, each, None, threads, isa)
            lost.append(judge(some, format_name, first, tried, threads, isa).sum())
        best = hessian.factors[int(np.argmin(lost))]
    data, losses = feed_back(weights, format_name, best, None, threads, isa)
    better = descend(weights, format_name, hessian, data, threads, isa)
    if better is not data or best is not first:
        data, losses = better, judge(weights, format_name, first, better, threads, isa)
    plain_loss = float(judge(weights, format_name, first, plain, threads, isa).sum())
    loss = float(losses.sum())
    fed_back = loss < plain_loss
    return Choice(data if fed_back else plain, fed_back, loss, plain_loss)


def descend(
    weights: Floats,
    format_name: str,
    hessian: Hessian,
    packed: Bytes,
    threads: int | None = None,
    isa: str | None = None,
) -> Bytes:
    """Improve rounded rows (rows, row_bytes): codes, scales and minimums, one after the other.

    No row loses more than before. Formats whose blocks are rounded whole: `packed` itself. Errors
    as for `quantize`.
    """
    format = _written(format_name)
    _check_columns(weights, len(hessian.damping))
    if format.name in _grids.WHOLE or len(weights) == 0:
        return packed
    return _core.gptq_descend(
        format.name,
        np.ascontiguousarray(weights, dtype=np.float32),
        hessian.gram,
        hessian.damping,
        packed,
        SWEEPS,
        threads or default_threads(),
        isa or engine.isa(),
    )


def quantize_groups(
    weights: Floats,
    bits: int,
    group: int,
    factor: Factor,
    threads: int | None = None,
    scale_type: str = "f16",
) -> GroupChoice:
    """Round weights (rows, cols) onto integer grids with a scale and an integer zero per group.

    With error feedback, or as rtn.quantize_groups does it for the factor's importance, whichever
    loses less. `scale_type` is what scales are stored in: f16, bf16, f32.
    UsageError for groups that do not fill a row, or a factor of another size.
    """
    _check_columns(weights, len(factor.order))
    chooser = _groups.least_squares(bits, scale_type)
    plain = _groups.by_group(weights, bits, group, factor.importance, threads, chooser)
    grid, losses = _gptq_groups.feed_back(weights, bits, group, factor, scale_type, threads)
    loss = float(losses.sum())
    plain_loss = float(_gptq_groups.judge(weights, plain, factor).sum())
    better = loss < plain_loss
    return GroupChoice(grid if better else plain, better, loss, plain_loss)


def hessian(
    gram: Floats, tokens: int, block: int, threads: int | None = None, isa: str | None = None
) -> Hessian:
    """What `choose` wants for formats with such blocks, of a Gram matrix of so many tokens.

    Errors as for `quantize`.
    """
    shares = _shares(len(gram), tokens)
    factors = [factorize(gram, share, block, threads, isa) for share in shares]
    panels = gram.reshape(len(gram), -1, COLUMNS).transpose(1, 0, 2)
    diagonal = gram.diagonal()
    damping = factors[0].damping * diagonal + FLOOR * _mean(diagonal)
    return Hessian(np.ascontiguousarray(panels, np.float32), damping.astype(np.float32), factors)


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
    cols is a multiple of 32. Columns that never fire are rounded as they are. Errors as for
    `quantize`.
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
    return min(max(DAMPING, DAMPING_PER_COLUMN * cols / max(tokens, 1)), MOST_DAMPING)


def factor_bytes(cols: int, tokens: int) -> int:
    """Memory that `hessian` takes, the Gram matrix not counted."""
    triangle, panels = cols * (cols + 64) // 2 * 8, cols * cols * 4
    return max(triangle, panels) + len(_shares(cols, tokens)) * panels


def feed_back(
    weights: Floats,
    format_name: str,
    factor: Factor,
    importance: Floats | None = None,
    threads: int | None = None,
    isa: str | None = None,
) -> tuple[Bytes, Doubles]:
    """Round with error feedback; the rows, and the loss of each, float64 (rows,).

    Arguments and errors as for `quantize`.
    """
    return _run(weights, format_name, factor, importance, None, threads, isa)


def judge(
    weights: Floats,
    format_name: str,
    factor: Factor,
    packed: Bytes,
    threads: int | None = None,
    isa: str | None = None,
) -> Doubles:
    """The loss of each row as `packed` has it, float64 (rows,): in the units of `feed_back`."""
    return _run(weights, format_name, factor, None, packed, threads, isa)[1]


def _run(
    weights: Floats,
    format_name: str,
    factor: Factor,
    importance: Floats | None,
    packed: Bytes | None,
    threads: int | None,
    isa: str | None,
) -> tuple[Bytes, Doubles]:
    format = _written(format_name)
    rows, cols = weights.shape
    format.row_bytes(cols)
    _check_columns(weights, len(factor.order))
    if importance is None:
        importance = factor.importance
    else:
        _grids.check_importance(importance, cols)
    if rows == 0:
        return np.empty((0, format.row_bytes(cols)), np.uint8), np.empty(0)
    return _core.gptq(
        format.name,
        np.ascontiguousarray(weights, dtype=np.float32),
        factor.panels,
        factor.variances,
        factor.order,
        np.ascontiguousarray(importance, dtype=np.float32),
        packed,
        threads or default_threads(),
        isa or engine.isa(),
    )


def _written(name: str) -> Format:
    format = formats.get(name)
    if format.name not in WRITTEN:
        raise UnsupportedError(
            f"{format.name} is not written with error feedback. Written are: "
            f"{', '.join(sorted(WRITTEN))}."
        )
    return format


def _check_columns(weights: Floats, cols: int) -> None:
    if weights.shape[1] != cols:
        raise UsageError(f"weights have {weights.shape[1]} columns, their inputs {cols}.")


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
