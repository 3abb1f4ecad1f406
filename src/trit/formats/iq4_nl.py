"""IQ4_NL: 32 codes of 4 bits into a table of uneven levels, one scale. weight = d · LEVELS[q].

    byte 0      2                                                 18
         ├─ d ──┼─ 16 bytes: weight j low, weight j + 16 high ────┤
           fp16

The levels lie closer around zero, where weights are. 4.5 bits per weight.
"""

import numpy as np

from trit.formats._codebook import IQ4_LEVELS
from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 18) -> codes (n, 32) uint8, indices into the levels, d (n,)."""
    return Unpacked(codes=split(blocks[:, 2:], bits=4, run=16), d=fp16_at(blocks, 0))


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    codes = join(unpacked.codes, bits=4, run=16)
    return np.concatenate([fp16_bytes(unpacked.d), codes], axis=1)


FORMAT = Format(
    name="iq4_nl",
    ggml_type=20,
    block_weights=32,
    block_bytes=18,
    group=32,
    unpack=unpack,
    pack=pack,
    levels=IQ4_LEVELS,
    fp16_at=(0,),
)
