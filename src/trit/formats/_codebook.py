"""The tables behind the IQ and FP4 types: levels, sign patterns, and gguf's codebooks.

The codebooks (256 to 2048 entries of four or eight magnitudes) are data, found once by a search,
and the `gguf` package carries them. They are fetched from it when the first such block is decoded:
importing it takes 160 ms, and most models need none.
"""

from functools import cache

import numpy as np

from trit.formats._format import Bytes, Floats, split

# ggml's kvalues_iq4nl (ggml-common.h).
IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

# The values of an E2M1 float (OCP Microscaling 1.0, 5.3.3), doubled to be integers.
E2M1_LEVELS = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)

# What IQ1_S and IQ1_M add to or take from the digits of a whole group.
SHIFT = np.float32(0.125)


@cache
def codebook(name: str) -> Floats:
    """The codebook of an IQ type, float32 (entries, width), width 4 or 8; read-only."""
    from gguf import quants

    table = getattr(quants, name.upper())
    table.init_grid()
    grid: Floats = table.grid.reshape(table.grid_shape)
    grid.flags.writeable = False
    return grid


@cache
def signs() -> Floats:
    """Factors (256, 8) float32: bit j of a sign byte, if set, makes weight j negative."""
    patterns = np.arange(256, dtype=np.uint8)[:, None]
    return np.float32(1) - np.float32(2) * split(patterns, bits=1, run=1)


@cache
def even_signs() -> Floats:
    """Factors (128, 8) float32 of the types that store seven signs of eight.

    Their encoders flip one weight where needed, so that the number of minus signs is even: the
    eighth is the parity of the others.
    """
    seven = np.arange(128, dtype=np.uint8)
    minus = np.unpackbits(seven[:, None], axis=1).sum(axis=1).astype(np.uint8)
    factors: Floats = signs()[seven | (minus & 1) << 7]
    return factors


def scaled(entries: Floats, factors: Floats, scales: Floats) -> Floats:
    """Codebook entries (n, …), as many factors ±1, scales (n, groups) -> weights (n, …) float32.

    Each scale covers an equal share of a row. `entries` is overwritten.
    """
    weights = entries.reshape(len(scales), scales.shape[1], -1)
    weights *= scales[:, :, None]
    weights *= factors.reshape(weights.shape)
    return weights.reshape(len(scales), -1)


def scales_and_signs(raw: Bytes) -> tuple[Bytes, Bytes]:
    """Bytes (blocks, groups, 4) -> scales (blocks, groups) and sign patterns (blocks, groups, 4).

    The four bytes are one little-endian number: four patterns of seven bits, then the scale.
    """
    words = np.ascontiguousarray(raw).view("<u4")[:, :, 0]
    patterns = words[:, :, None] >> np.array([0, 7, 14, 21], dtype=np.uint32) & 127
    return (words >> 28).astype(np.uint8), patterns.astype(np.uint8)
