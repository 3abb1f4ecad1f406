"""IQ1_S: groups of 32 as four entries of a codebook of 2048 x 8, with digits -1, 0 and 1.

    byte 0      2               34                                       50
         ├─ d ──┼─ 32 entries, ─┼─ 8 groups: high 3 bits of 4 entries, ──┤
           fp16   low 8 bits      scale of 3 bits, shift of 1 bit

weight = d · (2 · scale + 1) · (CODEBOOK[entry] ± ⅛), minus where the shift bit is set.
1.5625 bits per weight.
"""

import numpy as np

from trit.formats._codebook import SHIFT, codebook
from trit.formats._format import Bytes, Floats, Format, fp16_at


def decode_blocks(blocks: Bytes) -> Floats:
    """Blocks (n, 50) -> weights (n, 256) float32."""
    heads = blocks[:, 34:].view("<u2")
    high = heads[:, :, None] >> np.array([0, 3, 6, 9], dtype=np.uint16) & 7
    entries = blocks[:, 2:34] | high.reshape(-1, 32) << 8
    d = fp16_at(blocks, 0).astype(np.float32)[:, None]
    scale = d * (2 * (heads >> 12 & 7) + 1)
    weights: Floats = codebook("iq1_s")[entries].reshape(-1, 8, 32)
    weights += np.where(heads & 0x8000, -SHIFT, SHIFT)[:, :, None]
    weights *= scale[:, :, None]
    return weights.reshape(-1, 256)


FORMAT = Format(
    name="iq1_s",
    ggml_type=19,
    block_weights=256,
    block_bytes=50,
    group=32,
    decode_blocks=decode_blocks,
    fp16_at=(0,),
)
