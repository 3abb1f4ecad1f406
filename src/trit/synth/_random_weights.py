"""Random weights in any format, made as fast as they can be written.

Rounding floats would take minutes for a large model. Instead a pool of some thousand runs of blocks
is made once per format and row length, with random codes and scales such that what they decode to
has a given spread, and a mean of zero as far as the grid is symmetric; a tensor is then a random
sequence of runs from the pool. How a block is laid out is known to the format alone: random bytes
are unpacked by it, their float16 scales replaced, and packed again.

Same seed, same bytes: all chance is raw output of PCG64, whose stream numpy guarantees.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from trit.errors import UnsupportedError
from trit.files.gguf import TensorInfo
from trit.formats import Format

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

RUN_WEIGHTS = 256  # a run of the pool: one large block, or several small ones
POOL_RUNS = 4096  # a power of two below 2^16
DRAWN_RUNS = 512  # of formats that can only be read, whose blocks are drawn until they fit
DRAW_WEIGHTS = 1 << 20
MAX_DRAWS = 64
_PIECE_RUNS = 1 << 14


def matrix(info: TensorInfo, seed: int) -> Iterator[Bytes]:
    """The bytes of a matrix in pieces; its weights have a spread of 1/√columns.

    UnsupportedError for a format that no random block fits.
    """
    pool = _pool(info.format, info.cols, seed)
    bits = _bits(seed, zlib.crc32(info.name.encode()))
    left = info.nbytes
    while left:
        runs = min(_PIECE_RUNS, -(-left // pool.shape[1]))
        chosen = bits.random_raw(-(-runs // 4)).astype("<u8").view("<u2")[:runs]
        piece = pool[chosen & (len(pool) - 1)].reshape(-1)[:left]
        left -= len(piece)
        yield piece


def vector(info: TensorInfo, seed: int) -> Bytes:
    """The bytes of a vector of floats: a norm near one, a bias near zero."""
    centre, reach = (0.0, 0.02) if info.name.endswith(".bias") else (1.0, 0.1)
    values = _uniform(_bits(seed, zlib.crc32(info.name.encode())), info.cols) * np.float32(reach)
    assert info.format.encode is not None, f"{info.name}: vectors are floats"
    return info.format.encode(values + np.float32(centre))


def _bits(*seeds: int) -> np.random.PCG64:
    return np.random.PCG64(np.random.SeedSequence(list(seeds)))


def _random_bytes(bits: np.random.PCG64, count: int) -> Bytes:
    return bits.random_raw(-(-count // 8)).astype("<u8").view(np.uint8)[:count]


def _uniform(bits: np.random.PCG64, count: int) -> Floats:
    """Between -1 and 1, float32 (count,)."""
    words = bits.random_raw(-(-count // 2)).astype("<u8").view("<i4")[:count]
    return (words * 2.0**-31).astype(np.float32)


@lru_cache(maxsize=32)
def _pool(format: Format, cols: int, seed: int) -> Bytes:
    """Runs of blocks, uint8 (runs, run bytes)."""
    spread = 1 / math.sqrt(cols)
    bits = _bits(seed, format.ggml_type, cols)
    per_run = max(1, RUN_WEIGHTS // format.block_weights)
    if format.encode is not None:
        # Uniform numbers between ±√3 have a spread of 1.
        weights = _uniform(bits, POOL_RUNS * RUN_WEIGHTS) * np.float32(math.sqrt(3) * spread)
        blocks = format.encode(weights)
    elif format.pack is not None:
        blocks = _packed(format, bits, POOL_RUNS * per_run, spread)
    else:
        blocks = _drawn(format, bits, DRAWN_RUNS * per_run, spread)
    return blocks.reshape(-1, per_run * format.block_bytes)


def _packed(format: Format, bits: np.random.PCG64, count: int, spread: float) -> Bytes:
    """Blocks (count, block_bytes) with random codes and sub-scales; each has its own scale."""
    assert format.unpack is not None and format.pack is not None
    raw = _random_bytes(bits, count * format.block_bytes).reshape(count, format.block_bytes)
    random = format.unpack(raw)
    if format.count_invalid is not None:  # the ternary formats: 2 is no digit
        random = replace(random, codes=np.where(random.codes == 2, 0, random.codes))
    one, zero = np.ones(count, np.float16), np.zeros(count, np.float16)
    offset = None if random.m is None else zero
    weights = format.values(replace(random, d=one, m=offset))
    ratio = 0.0
    if random.m is not None:  # an offset that takes the mean of the codes away
        offsets = format.values(replace(random, d=zero, m=one))
        ratio = -float(weights.mean(dtype=np.float64) / offsets.mean(dtype=np.float64))
        weights += np.float32(ratio) * offsets
    scales = spread / float(weights.std(dtype=np.float64)) * (1 + _uniform(bits, count) / 4)
    d = scales.astype(np.float16)
    m = None if random.m is None else (ratio * scales).astype(np.float16)
    return format.pack(replace(random, d=d, m=m))


def _drawn(format: Format, bits: np.random.PCG64, count: int, spread: float) -> Bytes:
    """Blocks (count, block_bytes) of random bytes, those whose weights have about this spread."""
    kept: list[Bytes] = []
    for _ in range(MAX_DRAWS):
        tried = DRAW_WEIGHTS // format.block_weights
        raw = _random_bytes(bits, tried * format.block_bytes).reshape(tried, format.block_bytes)
        weights = format.decode(raw)
        with np.errstate(over="ignore", invalid="ignore"):
            spreads = np.sqrt(np.square(weights).mean(axis=1))
            kept.append(raw[(spreads > spread / 2) & (spreads < spread * 2)])
        if sum(map(len, kept)) >= count:
            return np.concatenate(kept)[:count]
    raise UnsupportedError(
        f"no random weights of a useful size can be made in {format.name}. Take another type."
    )
