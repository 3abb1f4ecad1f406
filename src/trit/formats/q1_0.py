"""Q1_0: 128 signs under one scale. weight = d · q, q = -1 or 1.

    byte 0      2                                        18
         ├─ d ──┼─ 128 bits, in order, low bits first ───┤
           fp16   a set bit is +1

1.125 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 18) -> codes (n, 128) int8, -1 or 1, d (n,)."""
    bits = split(blocks[:, 2:], bits=1, run=1).view(np.int8)
    return Unpacked(codes=bits * np.int8(2) - np.int8(1), d=fp16_at(blocks, 0))


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    assert bool((np.abs(unpacked.codes) == 1).all()), "a sign is -1 or 1"
    bits = join((unpacked.codes > 0).astype(np.uint8), bits=1, run=1)
    return np.concatenate([fp16_bytes(unpacked.d), bits], axis=1)


FORMAT = Format(
    name="q1_0",
    ggml_type=41,
    block_weights=128,
    block_bytes=18,
    group=128,
    unpack=unpack,
    pack=pack,
    fp16_at=(0,),
)
