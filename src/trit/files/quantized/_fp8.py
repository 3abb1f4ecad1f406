"""Numbers of eight bits, and matrices of them with a scale per tensor, per row or per block."""

from __future__ import annotations

from functools import cache

import numpy as np

from trit.files._tensor import Tensor
from trit.files.quantized._grid import Bytes, Floats
from trit.files.quantized._module import Module

TYPES = ("F8_E4M3", "F8_E5M2")
_CHUNK = 1 << 20


@cache
def table(dtype: str) -> Floats:
    """What each of the 256 codes of a type stands for, float32 (256,)."""
    codes = np.arange(256, dtype=np.uint8)
    if dtype == "F8_E5M2":  # the upper half of a float16
        return (codes.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    assert dtype == "F8_E4M3", dtype
    exponent, mantissa = (codes >> 3 & 15).astype(np.int32), (codes & 7).astype(np.float32)
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    values = np.where(exponent == 0, np.ldexp(mantissa / 8, -6), normal).astype(np.float32)
    values[codes & 127 == 127] = np.nan  # there is no infinity
    return np.where(codes < 128, values, -values)


def matrix(module: Module, scale: str, block: tuple[int, int] | None) -> Tensor:
    """The weight of a linear from 8-bit floats: number · scale.

    `scale` is the name of the scales' part: one for all, one per row, or one per `block` of rows
    and columns, of which the last may be cut short.
    """
    packed, scales = module.matrix("weight", *TYPES), module.floats(scale)
    rows, cols = packed.shape
    height, width = rows, cols
    if block is not None and scales.shape == (-(-rows // block[0]), -(-cols // block[1])):
        height, width = block
    elif scales.shape in ((rows,), (rows, 1)):
        height = 1
    elif scales.shape not in ((1,), (1, 1)):
        blocks = f" or one per block of {block[0]} × {block[1]}" if block else ""
        raise module.error(
            scale,
            f"expected one scale, one per row{blocks} for {packed.shape}, got {scales.shape}.",
        )

    def weights() -> Floats:
        by_block = scales.decode().reshape(-(-rows // height), -(-cols // width))
        return _scaled(packed.data.reshape(packed.shape), packed.dtype, by_block, height, width)

    return module.tensor((rows, cols), weights)


def _scaled(codes: Bytes, dtype: str, scales: Floats, height: int, width: int) -> Floats:
    weights = np.empty(codes.shape, np.float32)
    meanings, (rows, cols) = table(dtype), codes.shape
    row, column = np.arange(rows) // height, np.arange(cols) // width
    step = max(1, _CHUNK // cols)
    with np.errstate(invalid="ignore", over="ignore"):
        for first in range(0, rows, step):
            part = slice(first, first + step)
            np.take(meanings, codes[part], out=weights[part])
            weights[part] *= scales[row[part]][:, column]
    return weights
