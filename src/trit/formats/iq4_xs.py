"""IQ4_XS: 256 codes of 4 bits into iq4_nl's levels, 8 groups of 32; weight = d · scale · LEVELS[q].

    byte 0      2              4            8                                         136
         ├─ d ──┼─ high bits ──┼─ low bits ─┼─ codes ─────────────────────────────────┤
           fp16   of the scales  4 bits each  8 runs of 16 bytes: weight 32·r + j low,
                  2 bits each                 32·r + 16 + j high

Both parts of the scales are plain little-endian streams; a scale stores its value + 32, -32..31.
4.25 bits per weight.
"""

import numpy as np

from trit.formats._codebook import IQ4_LEVELS
from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 136) -> codes (n, 256) uint8 indices of the levels, d (n,), scales (n, 8) int8."""
    scales = split(blocks[:, 4:8], bits=4, run=1) | split(blocks[:, 2:4], bits=2, run=1) << 4
    return Unpacked(
        codes=split(blocks[:, 8:], bits=4, run=16),
        d=fp16_at(blocks, 0),
        scales=scales.view(np.int8) - np.int8(32),
    )


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    assert unpacked.scales is not None
    scales = unpacked.scales.astype(np.int8) + np.int8(32)
    return np.concatenate(
        [
            fp16_bytes(unpacked.d),
            join(scales >> 4, bits=2, run=1),
            join(scales & 15, bits=4, run=1),
            join(unpacked.codes, bits=4, run=16),
        ],
        axis=1,
    )


FORMAT = Format(
    name="iq4_xs",
    ggml_type=23,
    block_weights=256,
    block_bytes=136,
    group=32,
    unpack=unpack,
    pack=pack,
    levels=IQ4_LEVELS,
    fp16_at=(0,),
)
