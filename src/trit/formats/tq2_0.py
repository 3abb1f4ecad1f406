"""TQ2_0: 256 ternary digits of 2 bits under one scale. weight = d · q, q in -1..1.

    byte 0                                                      64     66
         ├─ 2 runs of 32 bytes: byte j of run r holds the ──────┼─ d ──┤
           weights 128·r + j + 32·(0, 1, 2, 3), low bits first    fp16

A digit stores q + 1. The pattern 3 is no digit: readers take it for +2, and no encoder writes it.
2.0625 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 66) -> codes (n, 256) int8 in -1..1 (2 where the pattern is illegal), d (n,)."""
    codes = split(blocks[:, :64], bits=2, run=32).view(np.int8) - np.int8(1)
    return Unpacked(codes=codes, d=fp16_at(blocks, 64))


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    codes = join(unpacked.codes.astype(np.int8) + np.int8(1), bits=2, run=32)
    return np.concatenate([codes, fp16_bytes(unpacked.d)], axis=1)


def count_invalid(blocks: Bytes) -> int:
    """How many of the digits in blocks (n, 66) are the illegal pattern 3."""
    return int((split(blocks[:, :64], bits=2, run=32) == 3).sum())


FORMAT = Format(
    name="tq2_0",
    ggml_type=35,
    block_weights=256,
    block_bytes=66,
    group=256,
    unpack=unpack,
    pack=pack,
    fp16_at=(64,),
    count_invalid=count_invalid,
)
