"""IQ3_S: groups of 32 as eight entries of a codebook of 512 x 4, with a sign for each weight.

    byte 0      2                66              74             106           110
         ├─ d ──┼─ 64 entries, ──┼─ 64 entries, ─┼─ 256 signs ──┼─ 8 scales ──┤
           fp16   low 8 bits       high bit        set is minus   4 bits each

weight = d · (1 + 2 · scale) · sign · CODEBOOK[entry]; small fields lie low bits first.
3.4375 bits per weight.
"""

import numpy as np

from trit.formats._codebook import (
    codebook,
    find_entries,
    odd_scales,
    scale_fields,
    sign_bytes,
    signed,
)
from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 110) -> codes (n, 256) int8, d (n,), scales (n, 8) uint8, odd."""
    high = split(blocks[:, 66:74], bits=1, run=1).astype(np.uint16)
    return Unpacked(
        codes=signed(codebook("iq3_s")[blocks[:, 2:66] | high << 8], blocks[:, 74:106]),
        d=fp16_at(blocks, 0),
        scales=odd_scales(split(blocks[:, 106:], bits=4, run=1)),
    )


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    entries = find_entries("iq3_s", np.abs(unpacked.codes))
    return np.concatenate(
        [
            fp16_bytes(unpacked.d),
            entries.astype(np.uint8),
            join(entries >> 8, bits=1, run=1),
            sign_bytes(unpacked.codes),
            join(scale_fields(unpacked), bits=4, run=1),
        ],
        axis=1,
    )


FORMAT = Format(
    name="iq3_s",
    ggml_type=21,
    block_weights=256,
    block_bytes=110,
    group=32,
    unpack=unpack,
    pack=pack,
    fp16_at=(0,),
)
