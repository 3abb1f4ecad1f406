"""Codes on an integer grid with a scale and a zero per group, and their packing into 32-bit words.

weight[r, c] = (code[r, c] - zero[r, group of c]) · scale[r, group of c]
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Parts = dict[str, tuple[str, tuple[int, ...]]]  # the last word of a name -> type and shape

WORD_BITS = 32
_CHUNK = 1 << 20  # weights decoded at a time: temporaries stay small beside a matrix


@dataclass(frozen=True)
class Grid:
    """A matrix of codes with what they mean.

    codes    uint8 (rows, cols)
    zeros    int16 (rows, groups); float32 where they are not whole
    scales   float32 (rows, groups)
    columns  intp (cols,), the group of each column; None: groups of `group` columns in order, of
             which the last may be shorter
    """

    codes: Bytes
    zeros: NDArray[np.int16] | Floats
    scales: Floats
    group: int
    columns: NDArray[np.intp] | None = None

    def weights(self) -> Floats:
        """Float32 (rows, cols); exact for scales of float16 or bfloat16 and codes of 8 bits."""
        rows, cols = self.codes.shape
        columns = np.arange(cols) // self.group if self.columns is None else self.columns
        even = self.columns is None and cols % self.group == 0
        weights = np.empty((rows, cols), np.float32)
        step = max(1, _CHUNK // cols)
        with np.errstate(invalid="ignore", over="ignore"):  # for those who check weights to find
            for first in range(0, rows, step):
                part = slice(first, first + step)
                zeros, scales = self.zeros[part].astype(np.float32), self.scales[part]
                out = weights[part]
                out[...] = self.codes[part]
                if even:
                    groups = out.reshape(len(out), -1, self.group)
                    groups -= zeros[:, :, None]
                    groups *= scales[:, :, None]
                else:
                    out -= zeros[:, columns]
                    out *= scales[:, columns]
        return weights


def words(count: int, bits: int) -> int:
    """How many 32-bit words hold `count` codes."""
    return -(-count * bits // WORD_BITS)


def unpack(packed: NDArray[np.integer], bits: int) -> Bytes:
    """Words (rows, n) of 32 bits -> uint8 (rows, n · 32 // bits): a stream from the lowest bit on.

    Codes may cross from word to word, as those of 3 bits do.
    """
    stream = np.ascontiguousarray(packed, dtype="<i4").view(np.uint8)
    rows = len(stream)
    count = packed.shape[1] * WORD_BITS // bits
    if bits == 8:
        return stream
    codes = np.empty((rows, count), np.uint8)
    if bits in (2, 4):
        for at in range(8 // bits):
            codes[:, at :: 8 // bits] = (stream >> np.uint8(at * bits)) & np.uint8((1 << bits) - 1)
        return codes
    powers = (1 << np.arange(bits)).astype(np.uint8)
    step = max(1, _CHUNK // max(1, count))
    for first in range(0, rows, step):
        ones = np.unpackbits(stream[first : first + step], axis=1, bitorder="little")
        ones = ones[:, : count * bits].reshape(len(ones), count, bits)
        codes[first : first + step] = (ones * powers).sum(axis=2, dtype=np.uint8)
    return codes


def pack(codes: Bytes, bits: int) -> Ints:
    """The inverse of `unpack`: uint8 (rows, count) -> int32 (rows, words), filled up with zeros."""
    rows, count = codes.shape
    assert codes.size == 0 or int(codes.max()) < 1 << bits, f"a code does not fit {bits} bits"
    packed = np.zeros((rows, words(count, bits) * 4), np.uint8)
    step = max(1, _CHUNK // max(1, count))
    for first in range(0, rows, step):
        part = codes[first : first + step]
        ones = (part[:, :, None] >> np.arange(bits, dtype=np.uint8)) & np.uint8(1)
        stream = np.packbits(ones.reshape(len(part), -1), axis=1, bitorder="little")
        packed[first : first + step, : stream.shape[1]] = stream
    return packed.view("<i4")
