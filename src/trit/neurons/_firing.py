"""What it may mean that a neuron fires.

SiLU and GELU give hardly any exact zero, so a neuron "is silent" only below some threshold, and the
answer depends on it. All of these are asked; a is the activation, the input of `ffn_down`, one of a
token's in one layer:

    above_rms         |a| > the root mean square of the token's activations
    tenth_of_max      |a| > 10% of the token's largest
    tenth_of_rms      |a| > 10% of that root mean square
    hundredth_of_max  |a| > 1% of the token's largest
    hundredth_of_rms  |a| > 1% of that root mean square
    int8              not 0 once rounded to int8 with a scale per 32 neurons: what the engine's
                      integer products see of it
    nonzero           not exactly 0 in float32
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

BLOCK = 32  # neurons that share a scale, in core/ops/matmul.h

# What fires by each definition, in words; the strictest first.
DEFINITIONS = {
    "above_rms": "|a| > the token's RMS",
    "tenth_of_max": "|a| > 10% of the token's max",
    "tenth_of_rms": "|a| > 10% of the token's RMS",
    "hundredth_of_max": "|a| > 1% of the token's max",
    "hundredth_of_rms": "|a| > 1% of the token's RMS",
    "int8": "not 0 as int8 per 32 neurons",
    "nonzero": "not 0 as float32",
}


def fired(sizes: Floats) -> Iterator[NDArray[np.bool_]]:
    """Which neurons fire, (tokens, neurons), by each definition in its order.

    sizes: |a|, float32 (tokens, neurons).
    """
    rms = np.sqrt(np.square(sizes, dtype=np.float32).mean(axis=1, keepdims=True))
    largest = sizes.max(axis=1, keepdims=True)
    yield sizes > rms
    for share in (0.1, 0.01):
        yield sizes > np.float32(share) * largest
        yield sizes > np.float32(share) * rms
    yield _rounded(sizes) != 0
    yield sizes > 0


def _rounded(sizes: Floats) -> Floats:
    """The codes of |a|, as core/ops/matmul.h rounds activations; a last short block is one too."""
    tokens, neurons = sizes.shape
    padded = np.zeros((tokens, -(-neurons // BLOCK) * BLOCK), np.float32)
    padded[:, :neurons] = sizes
    blocks = padded.reshape(tokens, -1, BLOCK)
    largest = blocks.max(axis=2, keepdims=True)
    inverse = np.divide(127, largest, out=np.zeros_like(largest), where=largest > 0)
    codes: Floats = np.rint(blocks * inverse).reshape(tokens, -1)[:, :neurons]
    return codes
