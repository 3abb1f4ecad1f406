"""IQ3_XXS: groups of 32 as eight entries of a codebook of 256 x 4, with a sign for each weight.

    byte 0      2              66                                98
         ├─ d ──┼─ 64 entries ─┼─ 8 groups: 4 signs of 7 bits, ──┤
           fp16   8 bits each    scale of 4 bits

weight = d · (scale + ½) / 2 · sign · CODEBOOK[entry]. Signs and scale as in iq2_xxs.
3.0625 bits per weight.
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
    """Blocks (n, 98) -> codes (n, 256) int8, d (n,), scales (n, 8) uint8, odd."""
    fields, patterns = split_words(blocks[:, 66:].reshape(-1, 8, 4))
    return Unpacked(
        codes=signed(codebook("iq3_xxs")[blocks[:, 2:66]], patterns),
        d=fp16_at(blocks, 0),
        scales=odd_scales(fields),
    )


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    entries = find_entries("iq3_xxs", np.abs(unpacked.codes)).astype(np.uint8)
    words = join_words(scale_fields(unpacked), sign_bytes(unpacked.codes))
    return np.concatenate([fp16_bytes(unpacked.d), entries, words.reshape(len(words), 32)], axis=1)


FORMAT = Format(
    name="iq3_xxs",
    ggml_type=18,
    block_weights=256,
    block_bytes=98,
    group=32,
    unpack=unpack,
    pack=pack,
    unit=1 / 4,
    fp16_at=(0,),
)
