"""Q3_K: 256 codes of 3 bits in 16 groups of 16; weight = d · scale · q, q in -4..3.

    byte 0             32              96                   108    110
         ├─ high bits ─┼─ low 2 bits ──┼─ scales ───────────┼─ d ──┤
           one run of    2 runs of 32    8 + 4 bytes, below   fp16
           32 bytes      bytes

A code stores q + 4, a scale (-32..31) its value + 32. Byte j of the high bits holds bit 2 of the
weights j + 32·(0 … 7), low bits first; byte j of run r of the low bits holds the weights
128·r + j + 32·(0 … 3). Scale byte i < 8 holds the low four bits of the scales i and i + 8; byte
8 + i holds the two high bits of the scales i, i + 4, i + 8, i + 12. 3.4375 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 110) -> codes (n, 256) int8, d (n,), scales (n, 16) int8."""
    codes = split(blocks[:, 32:96], bits=2, run=32) | split(blocks[:, :32], bits=1, run=32) << 2
    scales = split(blocks[:, 96:104], bits=4, run=8) | split(blocks[:, 104:108], bits=2, run=4) << 4
    return Unpacked(
        codes=codes.view(np.int8) - np.int8(4),
        d=fp16_at(blocks, 108),
        scales=scales.view(np.int8) - np.int8(32),
    )


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    assert unpacked.scales is not None
    codes = unpacked.codes.astype(np.int8) + np.int8(4)
    scales = unpacked.scales.astype(np.int8) + np.int8(32)
    return np.concatenate(
        [
            join(codes >> 2, bits=1, run=32),
            join(codes & 3, bits=2, run=32),
            join(scales & 15, bits=4, run=8),
            join(scales >> 4, bits=2, run=4),
            fp16_bytes(unpacked.d),
        ],
        axis=1,
    )


FORMAT = Format(
    name="q3_k",
    ggml_type=11,
    block_weights=256,
    block_bytes=110,
    group=16,
    unpack=unpack,
    pack=pack,
    fp16_at=(108,),
)
