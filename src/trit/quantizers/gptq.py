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

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit import _core, engine, formats
from trit.errors import UnsupportedError, UsageError
from trit.files.quantized import Grid
from trit.formats import Format
from trit.machine.processors import default_threads
from trit.quantizers import _gptq_groups, _grids, _groups
from trit.quantizers._hessian import (
    CHANCE,
    DAMPING,
    FLOOR,
    MOST_DAMPING,
    Factor,
    Hessian,
    damping,
    factor_bytes,
    factorize,
    hessian,
)

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

WRITTEN = _grids.SCALED | _grids.WHOLE
SWEEPS = 3  # of the descent over all columns
TRIED_ROWS = 512
# What the bytes depend on beside the inputs.
SETTINGS = (DAMPING, CHANCE, FLOOR, MOST_DAMPING, SWEEPS, TRIED_ROWS)


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
    """Round with error feedback and descend; keep that if it is better than `plain`, rtn's rows.

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
    if _descends(format_name) or best is not first:
        data = descend(weights, format_name, hessian, data, threads, isa)
        losses = judge(weights, format_name, first, data, threads, isa)
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

    No row loses more than before, but for rounding. Formats whose blocks are rounded whole:
    `packed` itself. Errors as for `quantize`.
    """
    format = _written(format_name)
    format.row_bytes(weights.shape[1])
    _check_columns(weights, len(hessian.damping))
    if not _descends(format.name) or len(weights) == 0:
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


def _descends(format_name: str) -> bool:
    return format_name in _grids.SCALED


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


__all__ = [
    "Choice",
    "Factor",
    "GroupChoice",
    "Hessian",
    "choose",
    "damping",
    "descend",
    "factor_bytes",
    "factorize",
    "feed_back",
    "hessian",
    "judge",
    "quantize",
    "quantize_groups",
]
