"""Q4_K: 256 codes of 4 bits in 8 groups of 32; weight = d · scale · q - dmin · min, q in 0..15.

    byte 0      2        4                16                                         144
         ├─ d ──┼─ dmin ─┼─ scales, mins ─┼─ codes ──────────────────────────────────┤
           fp16   fp16     8 + 8 of 6 bits  4 runs of 32 bytes: low nibbles, then high

Byte j of run r holds weight 64·r + j in its low and 64·r + 32 + j in its high nibble. The scales
and mins are laid out as `_kscales` draws them. 4.5 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split
from trit.formats._kscales import pack_scales, unpack_scales


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 144) -> codes (n, 256), d and m (dmin) (n,), scales and mins (n, 8)."""
    scales, mins = unpack_scales(blocks[:, 4:16])
    return Unpacked(
        codes=split(blocks[:, 16:], bits=4, run=32),
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
            join(unpacked.codes, bits=4, run=32),
        ],
        axis=1,
    )


FORMAT = Format(
    name="q4_k",
    ggml_type=12,
    block_weights=256,
    block_bytes=144,
    group=32,
    unpack=unpack,
    pack=pack,
    fp16_at=(0, 2),
)
