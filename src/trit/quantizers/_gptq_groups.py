"""Error feedback onto grids with a scale and a zero per group of columns, many rows at a time.

The rules are those of gptq.py: the scale and zero of a group are searched for the weights that
would undo all that is lost so far, and the scale is then refitted to the codes that feedback chose.
Arrays here are (columns, rows): a column of many rows is what is worked on.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from trit.errors import UnsupportedError
from trit.files.quantized import Grid
from trit.machine.processors import default_threads
from trit.quantizers import _groups

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

ROWS = 512  # at a time
REFITS = 2  # of a group's scales


class Factor(Protocol):
    """See gptq.Factor."""

    @property
    def variances(self) -> Floats: ...
    def columns(self, start: int, stop: int) -> Floats: ...


class _Turn(NamedTuple):
    """A group as rounded with one scale and zero: codes and errors (group, rows), others (rows,)"""

    codes: Floats
    errors: Floats
    scale: Floats
    zero: Floats
    losses: Floats


def feed_back(
    weights: Floats, bits: int, group: int, factor: Factor, scale_type: str, threads: int | None
) -> tuple[Grid, Doubles]:
    """Round weights (rows, cols) whose groups fill a row; the loss of each row too, float64."""
    rows, cols = weights.shape
    codes = np.empty((rows, cols), np.uint8)
    zeros, scales = np.empty((2, rows, cols // group), np.float32)
    losses = np.zeros(rows)

    def work(first: int) -> None:
        part = slice(first, min(first + ROWS, rows))
        given = np.ascontiguousarray(weights[part].T, np.float32)
        errors = np.empty_like(given)
        for index, start in enumerate(range(0, cols, group)):
            here = slice(start, start + group)
            found = _group(given[here], errors[:start], start, bits, factor, scale_type)
            errors[here] = found.errors
            codes[part, here] = found.codes.T
            scales[part, index], zeros[part, index] = found.scale, found.zero
            losses[part] += found.losses

    with ThreadPoolExecutor(threads or default_threads()) as pool:
        list(pool.map(work, range(0, rows, ROWS)))
    if not np.isfinite(scales).all():
        raise UnsupportedError("weights so large that their scales do not fit float16.")
    return Grid(codes, zeros.astype(np.int16), scales, group), losses


def judge(weights: Floats, grid: Grid, factor: Factor) -> Doubles:
    """The loss of each row as `grid` has it, float64 (rows,): in the units of `feed_back`."""
    off = weights - grid.weights()
    losses = np.zeros(len(weights))
    for start in range(0, weights.shape[1], grid.group):
        stop = start + grid.group
        etas = off[:, :stop] @ factor.columns(start, stop)
        losses += np.square(etas) @ factor.variances[start:stop]
    return losses


def _group(
    w: Floats, before: Floats, start: int, bits: int, factor: Factor, scale_type: str
) -> _Turn:
    """Round one group; `before` (start, rows) are the errors of all columns before it."""
    stop = start + len(w)
    upper = factor.columns(start, stop)
    inside, variances = upper[start:], factor.variances[start:stop]
    carried = upper[:start].T @ before
    wishes = (w + np.linalg.solve(inside.T, carried)).astype(np.float32)
    top = np.float32((1 << bits) - 1)
    weighing = np.broadcast_to(variances, (w.shape[1], len(w)))
    grid = _groups.Best(np.ascontiguousarray(wishes.T), weighing, top)
    _groups.search(grid, scale_type)
    scale, best = grid.scale, None
    for _ in range(1 + REFITS):
        turn, etas = _round(w, carried, inside, variances, scale, grid.zero, top)
        best = turn if best is None else _better(best, turn)
        # η is linear in the scale.
        slopes = inside.T @ (turn.codes - grid.zero)
        weighted = variances[:, None] * slopes
        above = np.einsum("ij,ij->j", weighted, etas + scale * slopes)
        below = np.einsum("ij,ij->j", weighted, slopes)
        good = (above > 0) & (below > 0)
        exact = np.where(good, above / np.where(good, below, 1), scale).astype(np.float32)
        scale = _groups.rounded(exact, scale_type)
    assert best is not None
    return best


def _round(
    w: Floats,
    carried: Floats,
    inside: Floats,
    variances: Floats,
    scale: Floats,
    zero: Floats,
    top: np.float32,
) -> tuple[_Turn, Floats]:
    """Column after column; what each turn's η are, (group, rows), too."""
    codes, errors, etas = np.empty((3, *w.shape), np.float32)
    for j, weight in enumerate(w):
        wish = weight + carried[j]
        if j:
            wish += inside[:j, j] @ errors[:j]
        code = codes[j]
        np.rint(wish / scale, out=code)
        code += zero
        np.clip(code, 0, top, out=code)
        value = (code - zero) * scale
        np.subtract(weight, value, out=errors[j])
        np.subtract(wish, value, out=etas[j])
    losses = variances @ np.square(etas)
    return _Turn(codes, errors, scale, zero, losses), etas


def _better(a: _Turn, b: _Turn) -> _Turn:
    """For each row the turn that lost less."""
    return _Turn(*(np.where(b.losses < a.losses, y, x) for x, y in zip(a, b, strict=True)))
