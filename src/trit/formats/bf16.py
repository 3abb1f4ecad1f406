"""BF16: the upper half of a float32, little endian. Eight significant bits, float32's range."""

import numpy as np

from trit.formats._format import Bytes, Floats, Format

_INFINITY = 0x7F80_0000  # a float32's bits without the sign; above it lie the NaNs


def decode_blocks(blocks: Bytes) -> Floats:
    """Bytes (n, 2) -> (n, 1) float32."""
    return (np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << 16).view(np.float32)


def encode(weights: Floats) -> Bytes:
    """Float32 (...) -> uint8 (weights.size · 2,), rounded to nearest even as ggml does.

    A NaN is made quiet instead of rounded: rounding could carry it into an infinity or a zero.
    """
    bits = np.ascontiguousarray(weights, dtype=np.float32).reshape(-1).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 64
    is_nan = (bits & 0x7FFF_FFFF) > _INFINITY
    return np.where(is_nan, quiet, rounded).astype("<u2").view(np.uint8)


def count_nonfinite(blocks: Bytes) -> int:
    """How many weights are Inf or NaN."""
    return int((~np.isfinite(decode_blocks(blocks))).sum())


FORMAT = Format(
    name="bf16",
    ggml_type=30,
    block_weights=1,
    block_bytes=2,
    group=1,
    decode_blocks=decode_blocks,
    encode=encode,
    count_nonfinite=count_nonfinite,
)
