"""IQ1_M: groups of 16 as two entries of a codebook of 2048 x 8, with digits -1, 0 and 1.

    byte 0               32                            48                        56
         ├─ 32 entries, ─┼─ 32 entries, high 3 bits, ──┼─ 4 words: 4 scales of ──┤
           low 8 bits      each with a shift of 1 bit    3 bits, 4 bits of d

weight = d · (2 · scale + 1) · (CODEBOOK[entry] ± ⅛), minus where the shift bit is set; each entry
has its own shift. The float16 d is cut into the top four bits of the four scale words, lowest bits
first. 1.75 bits per weight.
"""

import numpy as np
from numpy.typing import NDArray

from trit.formats._codebook import codebook, odd_scales, scale_fields, shifted, split_shifts
from trit.formats._format import Bytes, Format, Unpacked, join, split

_SCALES = np.array([0, 3, 6, 9], dtype=np.uint16)
_QUARTERS = np.array([0, 4, 8, 12], dtype=np.uint16)


def _block_scales(blocks: Bytes) -> NDArray[np.float16]:
    """Blocks (n, 56) -> d (n,) float16."""
    words = blocks[:, 48:].view("<u2") >> 12
    d: NDArray[np.float16] = np.bitwise_or.reduce(words << _QUARTERS, axis=1).view("<f2")
    return d


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 56) -> codes (n, 256) int8, in eighths, d (n,), scales (n, 16) uint8, odd."""
    heads = split(blocks[:, 32:48], bits=4, run=1)
    entries = blocks[:, :32] | (heads & 7).astype(np.uint16) << 8
    fields = blocks[:, 48:].view("<u2")[:, :, None] >> _SCALES & 7
    return Unpacked(
        codes=shifted(codebook("iq1_m")[entries], (heads & 8) != 0),
        d=_block_scales(blocks),
        scales=odd_scales(fields.reshape(-1, 16).astype(np.uint8)),
    )


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    entries, down = split_shifts(unpacked.codes, spans=32)
    fields = scale_fields(unpacked)
    assert not (fields > 7).any(), "a scale does not fit 3 bits"
    heads = entries >> 8 | down.astype(np.uint16) << 3
    scales = np.bitwise_or.reduce(fields.reshape(-1, 4, 4).astype(np.uint16) << _SCALES, axis=2)
    quarters = unpacked.d.astype("<f2").view(np.uint16)[:, None] >> _QUARTERS & 15
    words = (scales | quarters << 12).astype("<u2").view(np.uint8)
    return np.concatenate([entries.astype(np.uint8), join(heads, bits=4, run=1), words], axis=1)


def count_nonfinite(blocks: Bytes) -> int:
    """How many blocks (n, 56) have an infinite scale or none."""
    return int((~np.isfinite(_block_scales(blocks))).sum())


FORMAT = Format(
    name="iq1_m",
    ggml_type=29,
    block_weights=256,
    block_bytes=56,
    group=16,
    unpack=unpack,
    pack=pack,
    unit=1 / 8,
    count_nonfinite=count_nonfinite,
)
