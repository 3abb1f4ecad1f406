"""Q8_0: 32 signed bytes under one scale. weight = d · q, q in -128..127.

    byte 0      2                                           34
         ├─ d ──┼─ q[0] ─┬─ q[1] ─┬─      …      ─┬─ q[31] ─┤
           fp16   int8

8.5 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 34) -> codes (n, 32) int8, d (n,)."""
    return Unpacked(codes=blocks[:, 2:].view(np.int8), d=fp16_at(blocks, 0))


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    codes = unpacked.codes.astype(np.int8).view(np.uint8)
    return np.concatenate([fp16_bytes(unpacked.d), codes], axis=1)


FORMAT = Format(
    name="q8_0",
    ggml_type=8,
    block_weights=32,
    block_bytes=34,
    group=32,
    unpack=unpack,
    pack=pack,
    fp16_at=(0,),
)
