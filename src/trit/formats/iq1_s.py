"""IQ1_S: groups of 32 as four entries of a codebook of 2048 x 8, with digits -1, 0 and 1.

    byte 0      2               34                                       50
         ├─ d ──┼─ 32 entries, ─┼─ 8 groups: high 3 bits of 4 entries, ──┤
           fp16   low 8 bits      scale of 3 bits, shift of 1 bit

weight = d · (2 · scale + 1) · (CODEBOOK[entry] ± ⅛), minus where the shift bit is set.
1.5625 bits per weight.
"""

import numpy as np

from trit.formats._codebook import codebook, odd_scales, scale_fields, shifted, split_shifts
from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes

_HIGH = np.array([0, 3, 6, 9], dtype=np.uint16)


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 50) -> codes (n, 256) int8, in eighths, d (n,), scales (n, 8) uint8, odd."""
    heads = blocks[:, 34:].view("<u2")
    high = heads[:, :, None] >> _HIGH & 7
    entries = blocks[:, 2:34] | high.reshape(-1, 32) << 8
    return Unpacked(
        codes=shifted(codebook("iq1_s")[entries], (heads & 0x8000) != 0),
        d=fp16_at(blocks, 0),
        scales=odd_scales((heads >> 12 & 7).astype(np.uint8)),
    )


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    entries, down = split_shifts(unpacked.codes, spans=8)
    fields = scale_fields(unpacked)
    assert not (fields > 7).any(), "a scale does not fit 3 bits"
    high = np.bitwise_or.reduce((entries >> 8).reshape(-1, 8, 4) << _HIGH, axis=2)
    heads = high | fields.astype(np.uint16) << 12 | down.astype(np.uint16) << 15
    return np.concatenate(
        [fp16_bytes(unpacked.d), entries.astype(np.uint8), heads.astype("<u2").view(np.uint8)],
        axis=1,
    )


FORMAT = Format(
    name="iq1_s",
    ggml_type=19,
    block_weights=256,
    block_bytes=50,
    group=32,
    unpack=unpack,
    pack=pack,
    unit=1 / 8,
    fp16_at=(0,),
)
