"""Round to nearest with importance: the encoder behind every named mix.

Each block's scales are searched so that Σ importance · (weight - value)² becomes small; the weights
are then rounded to the nearest value that the scales allow. No data but the importance is needed,
and no weight's error is passed on to another. The search is in core/quantizers/: the same bytes on
every instruction set and for every number of threads.
"""

import numpy as np
from numpy.typing import NDArray

from trit import _core, engine, formats
from trit.errors import UnsupportedError
from trit.files.quantized import Grid
from trit.machine.processors import default_threads
from trit.quantizers import _groups
from trit.quantizers._grids import WRITTEN, check_importance


def quantize(
    weights: NDArray[np.float32],
    format_name: str,
    importance: NDArray[np.float32] | None = None,
    threads: int | None = None,
    isa: str | None = None,
) -> NDArray[np.uint8]:
    """Round weights (rows, cols) float32 onto a format's grid -> (rows, row_bytes) uint8.

    `importance` (cols,) float32 weighs the squared error of each column, in any unit (the mean
    squared input is usual); columns of a block that all weigh nothing count alike. `threads`: None
    for those the process may use. `isa` names an instruction set instead of the machine's best.
    A scale beyond fp16 is clamped to the largest finite one.

    UnsupportedError for a format that has no encoder or blocks that do not fill `cols`; UsageError
    for an importance of another length, or negative, or not finite.
    """
    format = formats.get(format_name)
    if format.name not in WRITTEN:
        raise UnsupportedError(
            f"{format.name} can be read but not written. Written are: {', '.join(sorted(WRITTEN))}."
        )
    rows, cols = weights.shape
    format.row_bytes(cols)
    if importance is not None:
        check_importance(importance, cols)
        importance = np.ascontiguousarray(importance, dtype=np.float32)
    if rows == 0:
        return np.empty((0, format.row_bytes(cols)), dtype=np.uint8)
    weights = np.ascontiguousarray(weights, dtype=np.float32)
    packed = _core.quantize(
        format.name,
        weights,
        importance,
        threads or default_threads(),
        isa or engine.isa(),
    )
    return np.asarray(packed, dtype=np.uint8)


def quantize_groups(
    weights: NDArray[np.float32],
    bits: int,
    group: int,
    importance: NDArray[np.float32] | None = None,
    threads: int | None = None,
    scale_type: str = "f16",
    symmetric: bool = False,
) -> Grid:
    """Round weights (rows, cols) onto integer grids with a scale and an integer zero per group.

    Scale and zero are searched so that Σ importance · (weight - value)² becomes small; `importance`
    is float32 (cols,). `scale_type` is what scales are stored in: f16, bf16, f32. `symmetric`:
    every zero is 2^(bits - 1), as layouts without zeros have it.
    UsageError for groups that do not fill a row.
    """
    if importance is not None:
        check_importance(importance, weights.shape[1])
    chooser = _groups.least_squares(bits, scale_type, symmetric)
    return _groups.by_group(weights, bits, group, importance, threads, chooser)
