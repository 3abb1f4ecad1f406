"""Q4_1: 32 codes of 4 bits, a scale and an offset. weight = d · q + m, q in 0..15.

    byte 0      2      4                                               20
         ├─ d ──┼─ m ──┼─ 16 bytes: weight j low, weight j + 16 high ──┤
           fp16   fp16

5 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 20) -> codes (n, 32) uint8 in 0..15, d and m (n,)."""
    codes = split(blocks[:, 4:], bits=4, run=16)
    return Unpacked(codes=codes, d=fp16_at(blocks, 0), m=fp16_at(blocks, 2))


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    assert unpacked.m is not None
    codes = join(unpacked.codes, bits=4, run=16)
    return np.concatenate([fp16_bytes(unpacked.d), fp16_bytes(unpacked.m), codes], axis=1)


FORMAT = Format(
    name="q4_1",
    ggml_type=3,
    block_weights=32,
    block_bytes=20,
    group=32,
    unpack=unpack,
    pack=pack,
    fp16_at=(0, 2),
)
