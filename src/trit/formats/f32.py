"""F32: IEEE 754 single precision, little endian. Four bytes a weight; nothing is lost."""

import numpy as np

from trit.formats._format import Bytes, Floats, Format


def decode_blocks(blocks: Bytes) -> Floats:
    """Bytes (n, 4) -> (n, 1) float32."""
    return np.ascontiguousarray(blocks).view("<f4")


def encode(weights: Floats) -> Bytes:
    """Float32 (...) -> its bytes, uint8 (weights.size · 4,)."""
    return np.ascontiguousarray(weights, dtype="<f4").reshape(-1).view(np.uint8)


def count_nonfinite(blocks: Bytes) -> int:
    """How many weights are Inf or NaN."""
    return int((~np.isfinite(decode_blocks(blocks))).sum())


FORMAT = Format(
    name="f32",
    ggml_type=0,
    block_weights=1,
    block_bytes=4,
    group=1,
    decode_blocks=decode_blocks,
    encode=encode,
    count_nonfinite=count_nonfinite,
)
