"""IQ3_S: groups of 32 as eight entries of a codebook of 512 x 4, with a sign for each weight.

    byte 0      2                66              74             106           110
         ├─ d ──┼─ 64 entries, ──┼─ 64 entries, ─┼─ 256 signs ──┼─ 8 scales ──┤
           fp16   low 8 bits       high bit        set is minus   4 bits each

weight = d · (1 + 2 · scale) · sign · CODEBOOK[entry]; small fields lie low bits first.
3.4375 bits per weight.
"""

import numpy as np

from trit.formats._codebook import codebook, scaled, signs
from trit.formats._format import Bytes, Floats, Format, fp16_at, split


def decode_blocks(blocks: Bytes) -> Floats:
    """Blocks (n, 110) -> weights (n, 256) float32."""
    high = split(blocks[:, 66:74], bits=1, run=1).astype(np.uint16)
    d = fp16_at(blocks, 0).astype(np.float32)[:, None]
    scale = d * (1 + 2 * split(blocks[:, 106:], bits=4, run=1))
    entries = codebook("iq3_s")[blocks[:, 2:66] | high << 8]
    return scaled(entries, signs()[blocks[:, 74:106]], scale)


FORMAT = Format(
    name="iq3_s",
    ggml_type=21,
    block_weights=256,
    block_bytes=110,
    group=32,
    decode_blocks=decode_blocks,
    fp16_at=(0,),
)
