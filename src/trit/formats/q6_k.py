"""Q6_K: 256 codes of 6 bits in 16 groups of 16; weight = d · scale · q, q in -32..31.

    byte 0               128              192             208    210
         ├─ low 4 bits ──┼─ high 2 bits ──┼─ scales ──────┼─ d ──┤
           2 runs of 64    2 runs of 32     16 int8         fp16
           bytes           bytes

A code stores q + 32. Byte j of run r holds the low bits of weights 128·r + j and 128·r + 64 + j, or
the high bits of weights 128·r + j + 32·(0 … 3), low bits first. 6.5625 bits per weight.
"""

import numpy as np

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes, join, split


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 210) -> codes (n, 256) int8, d (n,), scales (n, 16) int8."""
    low, high = split(blocks[:, :128], bits=4, run=64), split(blocks[:, 128:192], bits=2, run=32)
    return Unpacked(
        codes=(low | high << 4).view(np.int8) - np.int8(32),
        d=fp16_at(blocks, 208),
        scales=blocks[:, 192:208].view(np.int8),
    )


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    assert unpacked.scales is not None
    codes = unpacked.codes.astype(np.int8) + np.int8(32)
    return np.concatenate(
        [
            join(codes & 15, bits=4, run=64),
            join(codes >> 4, bits=2, run=32),
            unpacked.scales.astype(np.int8).view(np.uint8),
            fp16_bytes(unpacked.d),
        ],
        axis=1,
    )


FORMAT = Format(
    name="q6_k",
    ggml_type=14,
    block_weights=256,
    block_bytes=210,
    group=16,
    unpack=unpack,
    pack=pack,
    fp16_at=(208,),
)
