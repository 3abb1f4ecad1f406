"""IQ2_XS: groups of 16 as two entries of a codebook of 512 x 8, each with eight signs.

    byte 0      2                               66             74
         ├─ d ──┼─ 32 words: entry of 9 bits, ──┼─ 16 scales ──┤
           fp16   signs of 7 bits                 4 bits each

weight = d · (scale + ½) / 4 · sign · CODEBOOK[entry]. The eighth sign makes the number of minus
signs even. 2.3125 bits per weight.
"""

import numpy as np

from trit.formats._codebook import codebook, even_signs, scaled
from trit.formats._format import Bytes, Floats, Format, fp16_at, split


def decode_blocks(blocks: Bytes) -> Floats:
    """Blocks (n, 74) -> weights (n, 256) float32."""
    pairs = blocks[:, 2:66].view("<u2")
    d = fp16_at(blocks, 0).astype(np.float32)[:, None]
    scale = d * (np.float32(0.5) + split(blocks[:, 66:], bits=4, run=1)) * np.float32(0.25)
    return scaled(codebook("iq2_xs")[pairs & 511], even_signs()[pairs >> 9], scale)


FORMAT = Format(
    name="iq2_xs",
    ggml_type=17,
    block_weights=256,
    block_bytes=74,
    group=16,
    decode_blocks=decode_blocks,
    fp16_at=(0,),
)
