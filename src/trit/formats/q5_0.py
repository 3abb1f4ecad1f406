"""Q5_0: 32 codes of 5 bits under one scale. weight = d · q, q in -16..15.

    byte 0      2            6                                                 22
         ├─ d ──┼─ bit 4 of ─┼─ 16 bytes: weight j low, weight j + 16 high ────┤
           fp16   all codes    the low four bits of q + 16

The fifth bits are one little-endian 32-bit number: its bit j belongs to weight j.
5.5 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 22) -> codes (n, 32) int8 in -16..15, d (n,)."""
    low, high = split(blocks[:, 6:], bits=4, run=16), split(blocks[:, 2:6], bits=1, run=1)
    return Unpacked(codes=(low | high << 4).view(np.int8) - np.int8(16), d=fp16_at(blocks, 0))


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    codes = unpacked.codes.astype(np.int8) + np.int8(16)
    high, low = join(codes >> 4, bits=1, run=1), join(codes & 15, bits=4, run=16)
    return np.concatenate([fp16_bytes(unpacked.d), high, low], axis=1)


FORMAT = Format(
    name="q5_0",
    ggml_type=6,
    block_weights=32,
    block_bytes=22,
    group=32,
    unpack=unpack,
    pack=pack,
    fp16_at=(0,),
)
