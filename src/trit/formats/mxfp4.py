"""MXFP4: 32 floats of 4 bits under one power of two (OCP MX 1.0). weight = 2ᵉ⁻¹²⁸ · LEVELS[q].

    byte 0     1                                                 17
         ├─ e ─┼─ 16 bytes: weight j low, weight j + 16 high ────┤
          E8M0   a nibble is an E2M1 float

The levels are E2M1's values doubled, hence 128 instead of E8M0's bias of 127. e = 255 is NaN in the
standard; ggml decodes it as 2¹²⁷, and so does this module, but it counts as not finite.
4.25 bits per weight.
"""

import numpy as np

from trit.formats._codebook import E2M1_LEVELS
from trit.formats._format import Bytes, Floats, Format, split


def decode_blocks(blocks: Bytes) -> Floats:
    """Blocks (n, 17) -> weights (n, 32) float32."""
    exponent = blocks[:, 0].astype(np.int32)
    scale = np.ldexp(np.float32(1), exponent - 128)  # 0 and 1 are subnormal, and exact
    levels = np.array(E2M1_LEVELS, dtype=np.float32)
    return scale[:, None] * levels[split(blocks[:, 1:], bits=4, run=16)]


def count_nonfinite(blocks: Bytes) -> int:
    """How many blocks (n, 17) have the scale that the standard calls NaN."""
    return int((blocks[:, 0] == 255).sum())


FORMAT = Format(
    name="mxfp4",
    ggml_type=39,
    block_weights=32,
    block_bytes=17,
    group=32,
    decode_blocks=decode_blocks,
    levels=E2M1_LEVELS,
    count_nonfinite=count_nonfinite,
)
