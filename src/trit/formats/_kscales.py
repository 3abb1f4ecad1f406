"""The twelve bytes in which q4_k and q5_k keep eight scales and eight mins of six bits.

byte      bits 7 6   bits 5 … 0
0 … 3     sᵢ₊₄ high  scale i          i = 0 … 3
4 … 7     mᵢ₊₄ high  min i
byte      bits 7 … 4   bits 3 … 0
8 … 11    mᵢ₊₄ low     sᵢ₊₄ low       the low four bits of the scales and mins 4 … 7
"""

import numpy as np
from numpy.typing import NDArray

from trit.formats._format import Bytes


def unpack_scales(raw: Bytes) -> tuple[Bytes, Bytes]:
    """Bytes (blocks, 12) -> scales and mins, each uint8 (blocks, 8) in 0..63."""
    low_scales, low_mins, rest = raw[:, 0:4], raw[:, 4:8], raw[:, 8:12]
    scales = np.concatenate([low_scales & 63, (rest & 15) | ((low_scales >> 6) << 4)], axis=1)
    mins = np.concatenate([low_mins & 63, (rest >> 4) | ((low_mins >> 6) << 4)], axis=1)
    return scales, mins


def pack_scales(scales: NDArray[np.integer], mins: NDArray[np.integer]) -> Bytes:
    """The inverse of `unpack_scales`: two (blocks, 8) in 0..63 -> (blocks, 12) uint8."""
    for each in (scales, mins):
        assert each.size == 0 or (each.min() >= 0 and each.max() < 64), "a scale out of range"
    s, m = scales.astype(np.uint8), mins.astype(np.uint8)
    return np.concatenate(
        [
            s[:, :4] | ((s[:, 4:] >> 4) << 6),
            m[:, :4] | ((m[:, 4:] >> 4) << 6),
            (s[:, 4:] & 15) | ((m[:, 4:] & 15) << 4),
        ],
        axis=1,
    )
