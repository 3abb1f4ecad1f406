"""The formats that weights are rounded onto, and what the quantizers ask of importance data."""

import numpy as np
from numpy.typing import NDArray

from trit.errors import UsageError

FLOATS = frozenset({"f32", "f16", "bf16"})
TERNARY = frozenset({"tq1_0", "tq2_0"})
SCALED = frozenset(  # a code of its own for each weight, and scales in fp16
    ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k")
) | {"iq4_nl", "iq4_xs"}
WHOLE = frozenset(  # codes for several weights, or scales of few bits
    ("iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq3_xxs", "iq3_s", "mxfp4")
)
WRITTEN = FLOATS | TERNARY | SCALED | WHOLE


def check_importance(importance: NDArray[np.float32], cols: int) -> None:
    """UsageError for an importance that is not (cols,), or negative, or not finite."""
    if importance.shape != (cols,):
        raise UsageError(
            f"importance has shape {importance.shape}; the weights' {cols} columns need ({cols},)."
        )
    bad = ~((importance >= 0) & np.isfinite(importance))
    if bad.any():
        column = int(bad.argmax())
        raise UsageError(
            f"importance of column {column} is {importance[column]}; "
            "expected a finite number, zero or more. Measure it again."
        )
