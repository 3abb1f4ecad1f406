"""Q2_K: 256 codes of 2 bits in 16 groups of 16; weight = d · scale · q - dmin · min, q in 0..3.

    byte 0                 16                 80     82       84
         ├─ scales, mins ──┼─ codes ──────────┼─ d ──┼─ dmin ─┤
           16 bytes: scale   2 runs of          fp16   fp16
           low, min high     32 bytes

Byte j of run r of the codes holds the weights 128·r + j + 32·(0 … 3), low bits first.
2.625 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 84) -> codes (n, 256), d and m (dmin) (n,), scales and mins (n, 16) in 0..15."""
    return Unpacked(
        codes=split(blocks[:, 16:80], bits=2, run=32),
        d=fp16_at(blocks, 80),
        m=fp16_at(blocks, 82),
        scales=blocks[:, :16] & 15,
        mins=blocks[:, :16] >> np.uint8(4),
    )


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    assert unpacked.m is not None and unpacked.scales is not None and unpacked.mins is not None
    nibbles = np.stack([unpacked.scales, unpacked.mins], axis=2).reshape(-1, 32)
    return np.concatenate(
        [
            join(nibbles, bits=4, run=1),
            join(unpacked.codes, bits=2, run=32),
            fp16_bytes(unpacked.d),
            fp16_bytes(unpacked.m),
        ],
        axis=1,
    )


FORMAT = Format(
    name="q2_k",
    ggml_type=10,
    block_weights=256,
    block_bytes=84,
    group=16,
    unpack=unpack,
    pack=pack,
    fp16_at=(80, 82),
)
