"""F16: IEEE 754 half precision, little endian. Eleven significant bits, at most 65504."""

import numpy as np

from trit.formats._format import Bytes, Floats, Format


def decode_blocks(blocks: Bytes) -> Floats:
    """Bytes (n, 2) -> (n, 1) float32."""
    return np.ascontiguousarray(blocks).view("<f2").astype(np.float32)


def encode(weights: Floats) -> Bytes:
    """Float32 (...) -> uint8 (weights.size · 2,), rounded to nearest even; may become Inf."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return weights.astype("<f2").reshape(-1).view(np.uint8)


def count_nonfinite(blocks: Bytes) -> int:
    """How many weights are Inf or NaN."""
    return int((~np.isfinite(np.ascontiguousarray(blocks).view("<f2"))).sum())


FORMAT = Format(
    name="f16",
    ggml_type=1,
    block_weights=1,
    block_bytes=2,
    group=1,
    decode_blocks=decode_blocks,
    encode=encode,
    count_nonfinite=count_nonfinite,
)
