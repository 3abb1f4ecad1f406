"""Half-quadratic quantization: zeros that make the errors sparse, found without any data.

Errors are split into a sparse part, which a shrinkage for the norm of p < 1 leaves to the few
weights far off, and the rest, which is made small in the square; the weight of the split grows from
step to step (half-quadratic splitting). The scale of a group is that of its range and stays; the
zero takes up the mean of the rest. Of all steps the one with the least Σ |weight - value|^p is
kept, the range's own scale and zero among them.

Rounding such zeros afterwards, as a layout with integer zeros asks for, costs more than was gained.
So a second form keeps zeros whole at every step, and solves for the scale as well.
After Badri and Shaji, "Half-Quadratic Quantization of Large Machine Learning Models", 2023.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trit.errors import UsageError
from trit.files.quantized import Grid
from trit.quantizers import _groups

Floats = NDArray[np.float32]

NORM = 0.7
BETA = 10.0  # of the split at the first step
GROWTH = 1.01
STEPS = 20


def quantize_groups(
    weights: Floats,
    bits: int,
    group: int,
    threads: int | None = None,
    scale_type: str = "f16",
    *,
    axis: int = 1,
    whole_zeros: bool = True,
    zero_type: str = "f32",
    steps: int = STEPS,
) -> Grid:
    """Round weights (rows, cols) onto grids with a scale and a zero per group.

    axis         1: groups along the inputs, as AWQ and GPTQ have them; 0: along the outputs, and
                 the grid is that of the transposed matrix
    whole_zeros  every zero tried is a whole number, so that a layout with integer zeros holds what
                 was chosen; False: zeros are what `zero_type` holds
    UsageError for groups that do not fill a row (a column for axis 0).
    """
    if axis not in (0, 1):
        raise UsageError(f"axis {axis}: a matrix has 0 and 1.")
    given = weights if axis == 1 else np.ascontiguousarray(weights.T)
    chooser = _half_quadratic(bits, scale_type, whole_zeros, zero_type, steps)
    return _groups.by_group(given, bits, group, None, threads, chooser)


def _half_quadratic(
    bits: int, scale_type: str, whole: bool, zero_type: str, steps: int
) -> _groups.Chooser:
    top = np.float32((1 << bits) - 1)

    def choose(w: Floats, _: Floats | None) -> tuple[_groups.Codes, Floats, Floats]:
        low, span = _groups.span_of(w, top)
        scale = _groups.rounded(span, scale_type)
        zero = -low / scale
        best = np.full(len(w), np.inf, np.float32)
        kept = _groups.stored(zero, zero_type), scale
        beta = BETA
        for _step in range(steps):
            tried = np.clip(np.rint(zero), 0, top) if whole else _groups.stored(zero, zero_type)
            codes = _codes(w, scale, tried, top)
            levels = codes - tried[:, None]
            errors = w - levels * scale[:, None]
            size = np.abs(errors)
            loss = (size ** np.float32(NORM)).sum(axis=1)
            better = loss < best
            best = np.where(better, loss, best)
            kept = np.where(better, tried, kept[0]), np.where(better, scale, kept[1])
            smooth = (w - np.sign(errors) * shrunk(size, beta)).astype(np.float32)
            zero = (codes - smooth / scale[:, None]).mean(axis=1, dtype=np.float32)
            if whole:
                scale = _groups.rounded(_fitted(levels, smooth, scale), scale_type)
            beta *= GROWTH
        zero, scale = kept
        return _codes(w, scale, zero, top).astype(np.uint8), zero, scale

    return choose


def _fitted(levels: Floats, smooth: Floats, scale: Floats) -> Floats:
    """The scale (n,) that brings levels (n, columns) nearest in the square; the old one if none."""
    above, below = (levels * smooth).sum(axis=1), (levels * levels).sum(axis=1)
    good = (above > 0) & (below > 0)
    return np.where(good, above / np.where(good, below, 1), scale).astype(np.float32)


def shrunk(size: Floats, beta: float) -> Floats:
    """Magnitudes (…) less what the norm takes: max(e - e^(p-1) / β, 0)."""
    with np.errstate(divide="ignore"):
        rest: Floats = np.maximum(size - size ** np.float32(NORM - 1) / np.float32(beta), 0)
    return rest


def _codes(w: Floats, scale: Floats, zero: Floats, top: np.float32) -> Floats:
    codes: Floats = np.clip(np.rint(w / scale[:, None] + zero[:, None]), 0, top)
    return codes
