"""The formats a tensor may have, and what each of them loses on it.

What is lost is the squared error of the weights, each column weighed by how strongly it is used,
relative to the weighed squares of the weights themselves: Σ imp·(w − ŵ)² / Σ imp·w². It is taken
from a sample of rows, spread evenly over the tensor, that the encoder really rounds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trit import formats
from trit.files._tensor import Tensor
from trit.quantizers import rtn
from trit.quantizers._grids import WRITTEN

Floats = NDArray[np.float32]

SAMPLE_WEIGHTS = 1 << 18
SAMPLE_MATRICES = 8  # of a stack of experts

# All that is written but what is no choice: ternary formats round only ternary weights, and F32 and
# BF16 are larger than F16, which loses nothing that shows.
_NO_CHOICE = {"f32", "bf16", "tq1_0", "tq2_0", "mxfp4"}
MENU = tuple(
    sorted(WRITTEN - _NO_CHOICE, key=lambda name: (formats.get(name).bits_per_weight, name))
)


def menu(cols: int) -> list[str]:
    """The formats whose blocks fill rows of `cols`, the smallest first."""
    return [name for name in MENU if cols % formats.get(name).block_weights == 0]


def sample(tensor: Tensor, importance: Floats | None) -> list[tuple[Floats, Floats | None]]:
    """Rows (n, cols) of some of a tensor's matrices, each with the importance of its columns.

    importance   (matrices, cols), None: all columns count alike
    """
    matrices = 1 if importance is None else len(importance)
    rows = tensor.rows // matrices
    chosen = spread(matrices, SAMPLE_MATRICES)
    count = max(1, SAMPLE_WEIGHTS // (tensor.cols * len(chosen)))
    stored = tensor.data.reshape(tensor.rows, -1)
    found = []
    for matrix in chosen:
        at = matrix * rows + spread(rows, count)
        weights = tensor.format.decode(np.ascontiguousarray(stored[at]))
        found.append((weights, None if importance is None else importance[matrix]))
    return found


def spread(length: int, count: int) -> NDArray[np.int64]:
    """At most `count` of the numbers below `length`, evenly spread."""
    count = min(length, count)
    return (np.arange(count) * length + length // 2) // count


def errors(
    parts: list[tuple[Floats, Floats | None]], names: list[str], threads: int | None = None
) -> dict[str, float]:
    """What each format loses on a sample: relative, weighed. 0 where all the weights are 0."""
    total = sum(_energy(weights, columns) for weights, columns in parts)
    found = {}
    for name in names:
        lost = 0.0
        for weights, columns in parts:
            lost += _energy(weights - rounded(weights, name, columns, threads), columns)
        found[name] = lost / total if total else 0.0
    return found


def rounded(
    weights: Floats, name: str, columns: Floats | None, threads: int | None = None
) -> Floats:
    """The values that a format keeps of weights (rows, cols)."""
    format = formats.get(name)
    if format.encode is not None:
        return format.decode(format.encode(weights).reshape(len(weights), -1))
    return format.decode(rtn.quantize(weights, name, columns, threads))


def _energy(weights: Floats, columns: Floats | None) -> float:
    squares = np.square(weights, dtype=np.float64).sum(axis=0)
    if columns is None or not columns.any():
        return float(squares.sum())
    return float(squares @ columns.astype(np.float64))
