"""IQ3_XXS: groups of 32 as eight entries of a codebook of 256 x 4, with a sign for each weight.

    byte 0      2              66                                98
         ├─ d ──┼─ 64 entries ─┼─ 8 groups: 4 signs of 7 bits, ──┤
           fp16   8 bits each    scale of 4 bits

weight = d · (scale + ½) / 2 · sign · CODEBOOK[entry]. Signs and scale as in iq2_xxs.
3.0625 bits per weight.
"""

import numpy as np

from trit.formats._codebook import codebook, even_signs, scaled, scales_and_signs
from trit.formats._format import Bytes, Floats, Format, fp16_at


def decode_blocks(blocks: Bytes) -> Floats:
    """Blocks (n, 98) -> weights (n, 256) float32."""
    scales, patterns = scales_and_signs(blocks[:, 66:].reshape(-1, 8, 4))
    d = fp16_at(blocks, 0).astype(np.float32)[:, None]
    scale = d * (np.float32(0.5) + scales) * np.float32(0.5)
    return scaled(codebook("iq3_xxs")[blocks[:, 2:66]], even_signs()[patterns], scale)


FORMAT = Format(
    name="iq3_xxs",
    ggml_type=18,
    block_weights=256,
    block_bytes=98,
    group=32,
    decode_blocks=decode_blocks,
    fp16_at=(0,),
)
