"""IQ2_S: groups of 16 as two entries of a codebook of 1024 x 8, with a sign for each weight.

    byte 0      2                34             66               74             82
         ├─ d ──┼─ 32 entries, ──┼─ 256 signs ──┼─ 32 entries, ──┼─ 16 scales ──┤
           fp16   low 8 bits       set is minus   high 2 bits      4 bits each

weight = d · (scale + ½) / 4 · sign · CODEBOOK[entry]; small fields lie low bits first.
2.5625 bits per weight.
"""

import numpy as np

from trit.formats._codebook import codebook, scaled, signs
from trit.formats._format import Bytes, Floats, Format, fp16_at, split


def decode_blocks(blocks: Bytes) -> Floats:
    """Blocks (n, 82) -> weights (n, 256) float32."""
    high = split(blocks[:, 66:74], bits=2, run=1).astype(np.uint16)
    d = fp16_at(blocks, 0).astype(np.float32)[:, None]
    scale = d * (np.float32(0.5) + split(blocks[:, 74:], bits=4, run=1)) * np.float32(0.25)
    entries = codebook("iq2_s")[blocks[:, 2:34] | high << 8]
    return scaled(entries, signs()[blocks[:, 34:66]], scale)


FORMAT = Format(
    name="iq2_s",
    ggml_type=22,
    block_weights=256,
    block_bytes=82,
    group=16,
    decode_blocks=decode_blocks,
    fp16_at=(0,),
)
