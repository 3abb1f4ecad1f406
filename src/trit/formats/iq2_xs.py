"""IQ2_XS: groups of 16 as two entries of a codebook of 512 x 8, each with eight signs.

    byte 0      2                               66             74
         ├─ d ──┼─ 32 words: entry of 9 bits, ──┼─ 16 scales ──┤
           fp16   signs of 7 bits                 4 bits each

weight = d · (scale + ½) / 4 · sign · CODEBOOK[entry]. The eighth sign makes the number of minus
signs even. 2.3125 bits per weight.
"""

import numpy as np

from trit.formats._codebook import (
    codebook,
    even,
    find_entries,
    odd_scales,
    scale_fields,
    sign_bytes,
    signed,
    without_eighth,
)
from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 74) -> codes (n, 256) int8, d (n,), scales (n, 16) uint8, odd."""
    pairs = blocks[:, 2:66].view("<u2")
    return Unpacked(
        codes=signed(codebook("iq2_xs")[pairs & 511], even((pairs >> 9).astype(np.uint8))),
        d=fp16_at(blocks, 0),
        scales=odd_scales(split(blocks[:, 66:], bits=4, run=1)),
    )


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    seven = without_eighth(sign_bytes(unpacked.codes)).astype(np.uint16)
    pairs = find_entries("iq2_xs", np.abs(unpacked.codes)) | seven << 9
    scales = join(scale_fields(unpacked), bits=4, run=1)
    words = pairs.astype("<u2").view(np.uint8)
    return np.concatenate([fp16_bytes(unpacked.d), words, scales], axis=1)


FORMAT = Format(
    name="iq2_xs",
    ggml_type=17,
    block_weights=256,
    block_bytes=74,
    group=16,
    unpack=unpack,
    pack=pack,
    unit=1 / 8,
    fp16_at=(0,),
)
