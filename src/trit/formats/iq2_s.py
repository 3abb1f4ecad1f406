"""IQ2_S: groups of 16 as two entries of a codebook of 1024 x 8, with a sign for each weight.

    byte 0      2                34             66               74             82
         ├─ d ──┼─ 32 entries, ──┼─ 256 signs ──┼─ 32 entries, ──┼─ 16 scales ──┤
           fp16   low 8 bits       set is minus   high 2 bits      4 bits each

weight = d · (scale + ½) / 4 · sign · CODEBOOK[entry]; small fields lie low bits first.
2.5625 bits per weight.
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
    """Blocks (n, 82) -> codes (n, 256) int8, d (n,), scales (n, 16) uint8, odd."""
    high = split(blocks[:, 66:74], bits=2, run=1).astype(np.uint16)
    return Unpacked(
        codes=signed(codebook("iq2_s")[blocks[:, 2:34] | high << 8], blocks[:, 34:66]),
        d=fp16_at(blocks, 0),
        scales=odd_scales(split(blocks[:, 74:], bits=4, run=1)),
    )


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    entries = find_entries("iq2_s", np.abs(unpacked.codes))
    return np.concatenate(
        [
            fp16_bytes(unpacked.d),
            entries.astype(np.uint8),
            sign_bytes(unpacked.codes),
            join(entries >> 8, bits=2, run=1),
            join(scale_fields(unpacked), bits=4, run=1),
        ],
        axis=1,
    )


FORMAT = Format(
    name="iq2_s",
    ggml_type=22,
    block_weights=256,
    block_bytes=82,
    group=16,
    unpack=unpack,
    pack=pack,
    unit=1 / 8,
    fp16_at=(0,),
)
