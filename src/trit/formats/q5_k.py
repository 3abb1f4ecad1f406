"""Q5_K: 256 codes of 5 bits in 8 groups of 32; weight = d · scale · q - dmin · min, q in 0..31.

    byte 0      2        4                16            48                                176
         ├─ d ──┼─ dmin ─┼─ scales, mins ─┼─ high bits ─┼─ low 4 bits ────────────────────┤
           fp16   fp16     8 + 8 of 6 bits  one run of    4 runs of 32 bytes: low nibbles,
                                            32 bytes      then high

Byte j of the high bits holds bit 4 of the weights j + 32·(0 … 7), low bits first; the low nibbles
lie as in q4_k, the scales and mins as `_kscales` draws them. 5.5 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split
from trit.formats._kscales import pack_scales, unpack_scales


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 176) -> codes (n, 256), d and m (dmin) (n,), scales and mins (n, 8) in 0..63."""
    scales, mins = unpack_scales(blocks[:, 4:16])
    low, high = split(blocks[:, 48:], bits=4, run=32), split(blocks[:, 16:48], bits=1, run=32)
    return Unpacked(
        codes=low | high << 4,
        d=fp16_at(blocks, 0),
        m=fp16_at(blocks, 2),
        scales=scales,
        mins=mins,
    )


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    assert unpacked.m is not None and unpacked.scales is not None and unpacked.mins is not None
    return np.concatenate(
        [
            fp16_bytes(unpacked.d),
            fp16_bytes(unpacked.m),
            pack_scales(unpacked.scales, unpacked.mins),
            join(unpacked.codes >> 4, bits=1, run=32),
            join(unpacked.codes & 15, bits=4, run=32),
        ],
        axis=1,
    )


FORMAT = Format(
    name="q5_k",
    ggml_type=13,
    block_weights=256,
    block_bytes=176,
    group=32,
    unpack=unpack,
    pack=pack,
    fp16_at=(0, 2),
)
