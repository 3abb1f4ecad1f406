"""IQ2_XXS: groups of 32 as four entries of a codebook of 256 x 8, each with eight signs.

    byte 0      2                                                         66
         ├─ d ──┼─ 8 groups: ─────────────────────────────────────────────┤
           fp16   4 entries of 8 bits, 4 signs of 7 bits, scale of 4 bits

weight = d · (scale + ½) / 4 · sign · CODEBOOK[entry]. The eighth sign makes the number of minus
signs even; the second four bytes are one little-endian number, the scale on top. 2.0625 bits per
weight.
"""

import numpy as np

from trit.formats._codebook import (
    codebook,
    find_entries,
    join_words,
    odd_scales,
    scale_fields,
    sign_bytes,
    signed,
    split_words,
)
from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 66) -> codes (n, 256) int8, d (n,), scales (n, 8) uint8, odd."""
    groups = blocks[:, 2:].reshape(-1, 8, 8)
    fields, patterns = split_words(groups[:, :, 4:])
    return Unpacked(
        codes=signed(codebook("iq2_xxs")[groups[:, :, :4]], patterns),
        d=fp16_at(blocks, 0),
        scales=odd_scales(fields),
    )


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    entries = find_entries("iq2_xxs", np.abs(unpacked.codes)).astype(np.uint8)
    words = join_words(scale_fields(unpacked), sign_bytes(unpacked.codes))
    groups = np.concatenate([entries.reshape(-1, 8, 4), words], axis=2)
    return np.concatenate([fp16_bytes(unpacked.d), groups.reshape(len(groups), 64)], axis=1)


FORMAT = Format(
    name="iq2_xxs",
    ggml_type=16,
    block_weights=256,
    block_bytes=66,
    group=32,
    unpack=unpack,
    pack=pack,
    unit=1 / 8,
    fp16_at=(0,),
)
