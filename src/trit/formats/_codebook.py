"""The tables behind the IQ and FP4 types: levels, sign patterns, and gguf's codebooks.

The codebooks (256 to 2048 entries of four or eight magnitudes) are data, found once by a search,
and the `gguf` package carries them. They are fetched from it when the first such block is decoded:
importing it takes 160 ms, and most models need none.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from trit.formats._format import Bytes, Unpacked, split

# ggml's kvalues_iq4nl (ggml-common.h).
IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)

# The values of an E2M1 float (OCP Microscaling 1.0, 5.3.3), doubled to be integers.
E2M1_LEVELS = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)

Integers = NDArray[np.int8]

_WORD_SHIFTS = np.array([0, 7, 14, 21], dtype=np.uint32)


@cache
def codebook(name: str) -> Integers:
    """The codebook of an IQ type, int8 (entries, width), width 4 or 8; read-only."""
    from gguf import quants

    table = getattr(quants, name.upper())
    table.init_grid()
    grid = np.ascontiguousarray(table.grid.reshape(table.grid_shape), dtype=np.int8)
    grid.flags.writeable = False
    return grid


def find_entries(name: str, points: NDArray[np.integer]) -> NDArray[np.uint16]:
    """Points (blocks, n) int8 -> the entries (blocks, n / width) that they are."""
    keys, order = _ordered(name)
    width = codebook(name).shape[1]
    wanted = _keys(points.reshape(-1, width))
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    assert bool((keys[places] == wanted).all()), f"a point is not in the codebook of {name}"
    return order[places].reshape(len(points), points.shape[1] // width)


@cache
def _ordered(name: str) -> tuple[NDArray[np.integer], NDArray[np.uint16]]:
    keys = _keys(codebook(name))
    order = np.argsort(keys)
    return keys[order], order.astype(np.uint16)


def _keys(points: NDArray[np.integer]) -> NDArray[np.integer]:
    """One number per row of four or eight bytes."""
    keys: NDArray[np.integer] = (
        np.ascontiguousarray(points, dtype=np.int8).view(f"<i{points.shape[1]}").reshape(-1)
    )
    return keys


@cache
def _factors() -> Integers:
    """(256, 8): bit j of a sign byte, if set, makes weight j negative."""
    patterns = np.arange(256, dtype=np.uint8)[:, None]
    return np.int8(1) - np.int8(2) * split(patterns, bits=1, run=1).view(np.int8)


def signed(magnitudes: Integers, patterns: Bytes) -> Integers:
    """Codebook entries (blocks, …) with the signs of bytes (blocks, 32) -> codes (blocks, 256)."""
    codes: Integers = magnitudes.reshape(len(patterns), 256)
    return codes * _factors()[patterns].reshape(codes.shape)


def sign_bytes(codes: NDArray[np.integer]) -> Bytes:
    """The inverse of `signed`: codes (blocks, 256) -> bytes (blocks, 32)."""
    patterns: Bytes = np.packbits(codes < 0, axis=1, bitorder="little")
    return patterns


@cache
def _eighth() -> Bytes:
    """(256,): the top bit, set where a byte has an odd number of bits."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    return np.where(np.bitwise_xor.reduce(bits, axis=1), np.uint8(128), np.uint8(0))


def even(seven: Bytes) -> Bytes:
    """The sign bytes of the types that store seven signs of eight, of any shape.

    Their encoders flip one weight where needed, so that the number of minus signs is even: the
    eighth is the parity of the others.
    """
    return seven | _eighth()[seven]


def without_eighth(patterns: Bytes) -> Bytes:
    """The inverse of `even`."""
    assert not _eighth()[patterns].any(), "the number of minus signs is odd"
    return patterns & np.uint8(127)


def odd_scales(fields: Bytes) -> Bytes:
    """What a group's small integer multiplies: 1, 3, 5, …"""
    return fields * np.uint8(2) + np.uint8(1)


def scale_fields(unpacked: Unpacked) -> Bytes:
    """The inverse of `odd_scales`."""
    assert unpacked.scales is not None
    assert bool((unpacked.scales & 1).all()), "a scale is odd"
    return (unpacked.scales >> 1).astype(np.uint8)


def split_words(raw: Bytes) -> tuple[Bytes, Bytes]:
    """Bytes (blocks, groups, 4) -> scales (blocks, groups) and sign bytes (blocks, groups · 4).

    The four bytes are one little-endian number: four times seven signs, then the scale.
    """
    words = np.ascontiguousarray(raw).view("<u4")[:, :, 0]
    patterns = words[:, :, None] >> _WORD_SHIFTS & 127
    return (words >> 28).astype(np.uint8), even(patterns.astype(np.uint8)).reshape(len(raw), 32)


def join_words(fields: Bytes, patterns: Bytes) -> Bytes:
    """The inverse of `split_words`."""
    blocks, groups = fields.shape
    assert fields.size == 0 or fields.max() < 16, "a scale does not fit 4 bits"
    seven = without_eighth(patterns).reshape(blocks, groups, 4).astype(np.uint32) << _WORD_SHIFTS
    words = np.bitwise_or.reduce(seven, axis=2) | fields.astype(np.uint32) << 28
    raw: Bytes = words.astype("<u4")[:, :, None].view(np.uint8)
    return raw


def shifted(digits: Integers, down: NDArray[np.bool_]) -> Integers:
    """Entries (blocks, n, 8) of iq1_s -> codes (blocks, 256): eighths, moved by one up or down.

    `down` (blocks, spans) covers equal shares of a block.
    """
    span = 256 // down.shape[1]
    codes: Integers = (digits * np.int8(8)).reshape(*down.shape, span)
    codes += np.where(down, np.int8(-1), np.int8(1))[:, :, None]
    return codes.reshape(len(down), 256)


def split_shifts(
    codes: NDArray[np.integer], spans: int
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """The inverse of `shifted`: codes (blocks, 256) -> entries (blocks, 32), down."""
    moved = (codes & 7).reshape(len(codes), spans, 256 // spans)  # 1 or 7: an eighth up or down
    down: NDArray[np.bool_] = moved[:, :, 0] == 7
    whole = bool((moved == np.where(down, np.int8(7), np.int8(1))[:, :, None]).all())
    assert whole, "a code is not an eighth from a digit, or not on its neighbours' side"
    return find_entries("iq1_s", (codes + 3) >> 3), down
