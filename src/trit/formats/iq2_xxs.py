"""IQ2_XXS: groups of 32 as four entries of a codebook of 256 x 8, each with eight signs.

    byte 0      2                                                         66
         ├─ d ──┼─ 8 groups: ─────────────────────────────────────────────┤
           fp16   4 entries of 8 bits, 4 signs of 7 bits, scale of 4 bits

weight = d · (scale + ½) / 4 · sign · CODEBOOK[entry]. The eighth sign makes the number of minus
signs even; the second four bytes are one little-endian number, the scale on top. 2.0625 bits per
weight.
"""

import numpy as np

from trit.formats._codebook import codebook, even_signs, scaled, scales_and_signs
from trit.formats._format import Bytes, Floats, Format, fp16_at


def decode_blocks(blocks: Bytes) -> Floats:
    """Blocks (n, 66) -> weights (n, 256) float32."""
    groups = blocks[:, 2:].reshape(-1, 8, 8)
    scales, patterns = scales_and_signs(groups[:, :, 4:])
    d = fp16_at(blocks, 0).astype(np.float32)[:, None]
    scale = d * (np.float32(0.5) + scales) * np.float32(0.25)
    entries = codebook("iq2_xxs")[groups[:, :, :4]]
    return scaled(entries, even_signs()[patterns], scale)


FORMAT = Format(
    name="iq2_xxs",
    ggml_type=16,
    block_weights=256,
    block_bytes=66,
    group=32,
    decode_blocks=decode_blocks,
    fp16_at=(0,),
)
