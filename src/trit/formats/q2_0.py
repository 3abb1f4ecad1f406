"""Q2_0: 64 codes of 2 bits under one scale. weight = d · q, q in -1..2.

    byte 0      2                                                 18
         ├─ d ──┼─ 64 fields of 2 bits, in order, low bits first ─┤
           fp16   a field stores q + 1

2.25 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 18) -> codes (n, 64) int8 in -1..2, d (n,)."""
    codes = split(blocks[:, 2:], bits=2, run=1).view(np.int8) - np.int8(1)
    return Unpacked(codes=codes, d=fp16_at(blocks, 0))


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    codes = join(unpacked.codes.astype(np.int8) + np.int8(1), bits=2, run=1)
    return np.concatenate([fp16_bytes(unpacked.d), codes], axis=1)


FORMAT = Format(
    name="q2_0",
    ggml_type=42,
    block_weights=64,
    block_bytes=18,
    group=64,
    unpack=unpack,
    pack=pack,
    fp16_at=(0,),
)
