"""Q4_0: 32 codes of 4 bits under one scale. weight = d · q, q in -8..7.

    byte 0      2                                                 18
         ├─ d ──┼─ 16 bytes: weight j low, weight j + 16 high ────┤
           fp16   a nibble stores q + 8

4.5 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 18) -> codes (n, 32) int8 in -8..7, d (n,)."""
    codes = split(blocks[:, 2:], bits=4, run=16).view(np.int8) - np.int8(8)
    return Unpacked(codes=codes, d=fp16_at(blocks, 0))


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    codes = join(unpacked.codes.astype(np.int8) + np.int8(8), bits=4, run=16)
    return np.concatenate([fp16_bytes(unpacked.d), codes], axis=1)


FORMAT = Format(
    name="q4_0",
    ggml_type=2,
    block_weights=32,
    block_bytes=18,
    group=32,
    unpack=unpack,
    pack=pack,
    fp16_at=(0,),
)
