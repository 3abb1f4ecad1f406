"""What every format module fills in, and what it gives back.

A format is a byte layout and a grid, nothing more: it never chooses a value. A tensor's row is a
run of blocks of `block_bytes` bytes, each holding `block_weights` weights; within a block every
`group` weights share one scale. The integers a block stores mean

    weight = d · scale · level(code) - m · min      types with mins (q2_k, q4_k, q5_k)
    weight = d · level(code) + m                    types with one offset (q4_1, q5_1)
    weight = d · scale · unit · level(code)         the others; scale is 1 where there are no scales

in float32, multiplied from the left and rounded after each step, as ggml does: that order is part
of the layout, or decoding would not be bit-exact.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trit.errors import UnsupportedError

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

# Weights decoded at a time: the temporaries of one chunk (at most 1 MiB each) stay in the cache,
# and the memory used beside the result does not grow with the tensor.
_CHUNK_WEIGHTS = 1 << 18


@dataclass(frozen=True, eq=False)
class Unpacked:
    """The integers and float16 scales of some blocks.

    codes   (blocks, block_weights) int8 or uint8: the factor itself, or an index of `Format.levels`
    d       (blocks,) float16, the scale of the block
    m       (blocks,) float16: the offset, or the scale of `mins`; None where the type has neither
    scales  (blocks, groups) int8 or uint8, offsets taken off; None where d is the only scale
    mins    (blocks, groups) uint8; None where the type has none
    """

    codes: NDArray[np.int8] | NDArray[np.uint8]
    d: NDArray[np.float16]
    m: NDArray[np.float16] | None = None
    scales: NDArray[np.int8] | NDArray[np.uint8] | None = None
    mins: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False)
class Format:
    """One GGUF type: its name, its numbers, and the functions that read and write its blocks.

    The functions take and return blocks, uint8 (blocks, block_bytes). `decode_blocks` is None where
    `unpack` says it all; `unpack` and `pack` are None where the type is only read; `encode`, from
    float32 to uint8 (weights · block_bytes,), exists for the plain floats.
    """

    name: str
    ggml_type: int
    block_weights: int
    block_bytes: int
    group: int
    unpack: Callable[[Bytes], Unpacked] | None = None
    pack: Callable[[Unpacked], Bytes] | None = None
    decode_blocks: Callable[[Bytes], Floats] | None = None
    encode: Callable[[Floats], Bytes] | None = None
    levels: tuple[int, ...] | None = None  # what a code means; None: a code is its own value
    unit: float = 1.0  # of the codes, a power of two
    fp16_at: tuple[int, ...] = ()  # where in a block the float16 scales lie, in bytes
    count_nonfinite: Callable[[Bytes], int] | None = None  # where fp16_at cannot say it
    count_invalid: Callable[[Bytes], int] | None = None  # None: every bit pattern is a legal code

    @property
    def bits_per_weight(self) -> float:
        """Bits of storage per weight, scales included."""
        return self.block_bytes * 8 / self.block_weights

    def row_bytes(self, cols: int, where: str = "the tensor") -> int:
        """Bytes of a row of `cols` weights; UnsupportedError at `where` if they fill no blocks."""
        if cols % self.block_weights:
            fitting = "q8_0" if cols % 32 == 0 else "f16"
            raise UnsupportedError(
                f"{where} has {cols} columns; "
                f"{self.name} needs a multiple of {self.block_weights}.\n"
                f"Use --type {fitting} for it, or leave the fallback on."
            )
        return cols // self.block_weights * self.block_bytes

    def decode(self, data: Bytes) -> Floats:
        """Bytes (..., n · block_bytes) uint8 -> a new array (..., n · block_weights) float32."""
        blocks = self._blocks(data)
        weights = np.empty((len(blocks), self.block_weights), dtype=np.float32)
        # Inf and NaN scales are a question for verification; decoding shows them as they are.
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            for part in self._chunks(len(blocks)):
                if self.decode_blocks is not None:
                    weights[part] = self.decode_blocks(blocks[part])
                else:
                    assert self.unpack is not None
                    self._evaluate(self.unpack(blocks[part]), weights[part])
        cols = data.shape[-1] // self.block_bytes * self.block_weights
        return weights.reshape(*data.shape[:-1], cols)

    def values(self, unpacked: Unpacked) -> Floats:
        """The weights (blocks, block_weights) float32 that the unpacked blocks stand for."""
        weights = np.empty(unpacked.codes.shape, dtype=np.float32)
        with np.errstate(invalid="ignore", over="ignore", under="ignore"):
            self._evaluate(unpacked, weights)
        return weights

    def nonfinite(self, data: Bytes) -> int:
        """How many scales (of a plain float type: weights) in data (..., bytes) are Inf or NaN."""
        blocks = self._blocks(data)
        count = self.count_nonfinite or self._count_nonfinite_fp16
        return sum(count(blocks[part]) for part in self._chunks(len(blocks)))

    def invalid_codes(self, data: Bytes) -> int:
        """How many codes in data (..., bytes) no encoder of this type can have written."""
        if self.count_invalid is None:
            return 0
        blocks = self._blocks(data)
        return sum(self.count_invalid(blocks[part]) for part in self._chunks(len(blocks)))

    def _blocks(self, data: Bytes) -> Bytes:
        assert data.dtype == np.uint8, f"{self.name} blocks are bytes, not {data.dtype}"
        assert data.shape[-1] % self.block_bytes == 0, (
            f"{data.shape} holds no whole {self.name} blocks"
        )
        return data.reshape(-1, self.block_bytes)

    def _chunks(self, blocks: int) -> list[slice]:
        step = _CHUNK_WEIGHTS // self.block_weights
        return [slice(start, start + step) for start in range(0, blocks, step)]

    def _evaluate(self, unpacked: Unpacked, out: Floats) -> None:
        """Write the weights of the unpacked blocks to out (blocks, block_weights)."""
        if self.levels is None:
            out[...] = unpacked.codes
        else:
            np.take(np.array(self.levels, dtype=np.float32), unpacked.codes, out=out, mode="clip")
        d = unpacked.d.astype(np.float32)[:, None]
        m = None if unpacked.m is None else unpacked.m.astype(np.float32)[:, None]
        if unpacked.scales is None:
            out *= d
            if m is not None:
                out += m
            return
        groups = out.reshape(len(out), -1, self.group)
        groups *= (d * unpacked.scales.astype(np.float32) * np.float32(self.unit))[:, :, None]
        if unpacked.mins is not None:
            assert m is not None
            groups -= (m * unpacked.mins.astype(np.float32))[:, :, None]

    def _count_nonfinite_fp16(self, blocks: Bytes) -> int:
        return sum(int((~np.isfinite(fp16_at(blocks, at))).sum()) for at in self.fp16_at)


def fp16_at(blocks: Bytes, at: int) -> NDArray[np.float16]:
    """The float16 at byte `at` of blocks: (blocks, block_bytes) -> (blocks,), bits untouched."""
    scales: NDArray[np.float16] = blocks[:, at : at + 2].view("<f2")[:, 0]
    return scales


def fp16_bytes(scales: NDArray[np.float16]) -> Bytes:
    """Float16 (blocks,) -> bytes (blocks, 2), bits untouched."""
    return np.ascontiguousarray(scales, dtype="<f2").view(np.uint8).reshape(-1, 2)


def split(raw: Bytes, bits: int, run: int) -> Bytes:
    """Bytes (blocks, n) -> the fields of `bits` bits they hold, uint8 (blocks, n · 8 / bits).

    Types differ only in how far apart the fields of one byte land. Within each run of `run` bytes,
    byte j holds the fields j, j + run, j + 2·run, …, lowest bits first; run = 1 is a plain
    little-endian stream.
    """
    blocks, size = raw.shape
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    fields: Bytes = raw.reshape(blocks, size // run, 1, run) >> shifts
    fields &= np.uint8((1 << bits) - 1)
    return fields.reshape(blocks, size * 8 // bits)


def join(fields: NDArray[np.integer], bits: int, run: int) -> Bytes:
    """The inverse of `split`: integers (blocks, n) -> bytes (blocks, n · bits / 8)."""
    blocks, count = fields.shape
    in_range = fields.size == 0 or (fields.min() >= 0 and fields.max() < 1 << bits)
    assert in_range, f"a code does not fit {bits} bits"
    per_byte = 8 // bits
    size = count // per_byte
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None]
    runs = fields.astype(np.uint8).reshape(blocks, size // run, per_byte, run) << shifts
    joined: Bytes = np.bitwise_or.reduce(runs, axis=2)
    return joined.reshape(blocks, size)
