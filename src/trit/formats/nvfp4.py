"""NVFP4: 64 floats of 4 bits, a scale of 8 bits for each 16. weight = s · LEVELS[q] / 2.

    byte 0            4                                                    36
         ├─ 4 scales ─┼─ 4 runs of 8 bytes: weight 16·r + j low, ──────────┤
           UE4M3        16·r + 8 + j high; a nibble is an E2M1 float

A UE4M3 scale has four exponent bits (bias 7) and three of mantissa; its top bit is not read. As in
ggml 0x7F, the standard's NaN, is zero. The levels are E2M1's values doubled, hence the half. A
factor per tensor is stored beside the tensor, not here. 4.5 bits per weight.
"""

import numpy as np

from trit.formats._codebook import E2M1_LEVELS
from trit.formats._format import Bytes, Floats, Format, split


def _half_scales(codes: Bytes) -> Floats:
    """UE4M3 codes, any shape uint8 -> half of the scales they mean, float32."""
    exponent = (codes >> 3).astype(np.int32) & 15
    mantissa = (codes & 7).astype(np.int32)
    # Subnormals have no hidden one and the exponent of 1: m · 2⁻⁹; the others (8 + m) · 2ᵉ⁻¹⁰.
    digits = np.where(exponent == 0, mantissa, mantissa + 8).astype(np.float32)
    scales = np.ldexp(digits, np.maximum(exponent, 1) - 11)
    return np.where(codes == 0x7F, np.float32(0), scales)


def decode_blocks(blocks: Bytes) -> Floats:
    """Blocks (n, 36) -> weights (n, 64) float32."""
    levels = np.array(E2M1_LEVELS, dtype=np.float32)
    weights = levels[split(blocks[:, 4:], bits=4, run=8)].reshape(-1, 4, 16)
    weights *= _half_scales(blocks[:, :4])[:, :, None]
    return weights.reshape(-1, 64)


FORMAT = Format(
    name="nvfp4",
    ggml_type=40,
    block_weights=64,
    block_bytes=36,
    group=16,
    decode_blocks=decode_blocks,
    levels=E2M1_LEVELS,
)
