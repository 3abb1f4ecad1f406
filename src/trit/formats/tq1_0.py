"""TQ1_0: 256 ternary digits, five to a byte, under one scale. weight = d · q, q in -1..1.

    byte 0              32             48           52     54
         ├─ 32 bytes ───┼─ 16 bytes ───┼─ 4 bytes ──┼─ d ──┤
           weights        weights        weights      fp16
           0 … 159        160 … 239      240 … 255

Within each of the three runs, of length n, byte j holds the digits j, j + n, j + 2n, …: five, in
the last run four. With v = the digits q + 1 read as a number in base 3, first digit highest (and a
last digit 0 where there are four), the byte is ⌈v · 256 / 243⌉: a fraction of 256, from which
multiplying by 3 shifts out one digit after the other, without dividing. 1.6875 bits per weight.
"""

import numpy as np
from numpy.typing import NDArray

from trit.formats._format import Bytes, Format, Unpacked, fp16_at, fp16_bytes

_RUNS = ((0, 32, 5), (32, 48, 5), (48, 52, 4))  # first byte, byte after, digits in each
_POWERS = np.array([1, 3, 9, 27, 81], dtype=np.uint8)


def _bytes_of(numbers: NDArray[np.uint16]) -> Bytes:
    """Numbers 0..242 of five digits -> the bytes that store them, rounded up to lose none."""
    return ((numbers * np.uint16(256) + np.uint16(242)) // np.uint16(243)).astype(np.uint8)


def unpack(blocks: Bytes) -> Unpacked:
    """Blocks (n, 54) -> codes (n, 256) int8 in -1..1, d (n,)."""
    runs = []
    for start, stop, digits in _RUNS:
        # The product wraps at 256 on purpose: that drops the digits already read.
        rests = blocks[:, None, start:stop] * _POWERS[:digits, None]
        digit = (rests.astype(np.uint16) * np.uint16(3)) >> 8
        runs.append(digit.reshape(len(blocks), (stop - start) * digits))
    codes = np.concatenate(runs, axis=1).astype(np.int8) - np.int8(1)
    return Unpacked(codes=codes, d=fp16_at(blocks, 52))


def pack(unpacked: Unpacked) -> Bytes:
    """The inverse of `unpack`."""
    codes = unpacked.codes
    assert codes.size == 0 or (codes.min() >= -1 and codes.max() <= 1), "a digit is -1, 0 or 1"
    rest = (codes.astype(np.int8) + np.int8(1)).astype(np.uint16)
    parts = []
    for start, stop, digits in _RUNS:
        run, rest = np.split(rest, [(stop - start) * digits], axis=1)
        places = _POWERS[4 - np.arange(digits)].astype(np.uint16)[:, None]
        numbers = (run.reshape(len(run), digits, stop - start) * places).sum(
            axis=1, dtype=np.uint16
        )
        parts.append(_bytes_of(numbers))
    return np.concatenate([*parts, fp16_bytes(unpacked.d)], axis=1)


def count_invalid(blocks: Bytes) -> int:
    """How many digit bytes in blocks (n, 54) no encoder writes.

    These are 13 of the 256 patterns and, in the last run, those with a fifth digit.
    """
    numbers = np.arange(243, dtype=np.uint16)
    bad_five, bad_four = np.ones(256, dtype=bool), np.ones(256, dtype=bool)
    bad_five[_bytes_of(numbers)] = False
    bad_four[_bytes_of(numbers[::3])] = False
    return int(bad_five[blocks[:, :48]].sum() + bad_four[blocks[:, 48:52]].sum())


FORMAT = Format(
    name="tq1_0",
    ggml_type=34,
    block_weights=256,
    block_bytes=54,
    group=256,
    unpack=unpack,
    pack=pack,
    fp16_at=(52,),
    count_invalid=count_invalid,
)
