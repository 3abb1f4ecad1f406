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

from trit.formats._codebook import SHIFT, codebook
from trit.formats._format import Bytes, Floats, Format, split


def _block_scales(blocks: Bytes) -> NDArray[np.float16]:
    """Blocks (n, 56) -> d (n,) float16."""
    words = blocks[:, 48:].view("<u2") >> 12
    shifts = np.array([0, 4, 8, 12], dtype=np.uint16)
    d: NDArray[np.float16] = np.bitwise_or.reduce(words << shifts, axis=1).view("<f2")
    return d


def decode_blocks(blocks: Bytes) -> Floats:
    """Blocks (n, 56) -> weights (n, 256) float32."""
    heads = split(blocks[:, 32:48], bits=4, run=1)
    entries = blocks[:, :32] | (heads & 7).astype(np.uint16) << 8
    words = blocks[:, 48:].view("<u2")
    scales = words[:, :, None] >> np.array([0, 3, 6, 9], dtype=np.uint16) & 7
    d = _block_scales(blocks).astype(np.float32)[:, None]
    scale = d * (2 * scales.reshape(-1, 16) + 1)
    weights = codebook("iq1_m")[entries]
    weights += np.where(heads & 8, -SHIFT, SHIFT)[:, :, None]
    groups: Floats = weights.reshape(-1, 16, 16)
    groups *= scale[:, :, None]
    return groups.reshape(-1, 256)


def count_nonfinite(blocks: Bytes) -> int:
    """How many blocks (n, 56) have an infinite scale or none."""
    return int((~np.isfinite(_block_scales(blocks))).sum())


FORMAT = Format(
    name="iq1_m",
    ggml_type=29,
    block_weights=256,
    block_bytes=56,
    group=16,
    decode_blocks=decode_blocks,
    count_nonfinite=count_nonfinite,
)
