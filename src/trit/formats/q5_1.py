"""Q5_1: 32 codes of 5 bits, a scale and an offset. weight = d · q + m, q in 0..31.

    byte 0      2      4            8                                               24
         ├─ d ──┼─ m ──┼─ bit 4 of ─┼─ 16 bytes: weight j low, weight j + 16 high ──┤
           fp16   fp16   all codes    the low four bits of q

The fifth bits are one little-endian 32-bit number: its bit j belongs to weight j.
6 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 24) -> codes (n, 32) uint8 in 0..31, d and m (n,)."""
    low, high = split(blocks[:, 8:], bits=4, run=16), split(blocks[:, 4:8], bits=1, run=1)
    return Unpacked(codes=low | high << 4, d=fp16_at(blocks, 0), m=fp16_at(blocks, 2))


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    assert unpacked.m is not None
    high = join(unpacked.codes >> 4, bits=1, run=1)
    low = join(unpacked.codes & 15, bits=4, run=16)
    return np.concatenate([fp16_bytes(unpacked.d), fp16_bytes(unpacked.m), high, low], axis=1)


FORMAT = Format(
    name="q5_1",
    ggml_type=7,
    block_weights=32,
    block_bytes=24,
    group=32,
    unpack=unpack,
    pack=pack,
    fp16_at=(0, 2),
)
