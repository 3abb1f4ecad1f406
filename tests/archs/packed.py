"""Folders whose linears are quantized, made of random words, and what they mean, one by one.

The decoders here follow the descriptions of the formats literally: a number at a time, in Python's
own integers and float64. They share nothing with trit's.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import folders
import numpy as np

Arrays = dict[str, np.ndarray]
GROUP = 16

_TYPES = {"float32": "F32", "float16": "F16", "int64": "I64", "int32": "I32", "int8": "I8"}


def save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """A safetensors file; uint8 stands for F8_E4M3, uint16 for BF16."""
    types = _TYPES | {"uint8": "F8_E4M3", "uint16": "BF16"}
    header, at = {}, 0
    for name, array in arrays.items():
        offsets = [at, at + array.nbytes]
        header[name] = {
            "dtype": types[array.dtype.name], "shape": list(array.shape), "data_offsets": offsets,
        }  # fmt: skip
        at += array.nbytes
    raw = json.dumps(header).encode()
    data = b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def write(
    folder: Path, quantization: Any, make: Callable[[int, int, np.random.Generator], Arrays]
) -> tuple[Path, Arrays]:
    """A llama whose linears `make(rows, cols, random)` makes; the folder and all arrays."""
    random = np.random.default_rng(1)
    arrays: Arrays = {}
    for name, weight in folders.weights().items():
        if weight.ndim == 2 and name != "model.embed_tokens.weight":
            module = name.removesuffix(".weight")
            parts = make(*weight.shape, random)
            arrays |= {f"{module}.{part}": array for part, array in parts.items()}
        else:
            arrays[name] = weight.astype(np.float16)
    folder.mkdir(exist_ok=True)
    config = folders.CONFIG | {"quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save(folder / "model.safetensors", arrays)
    return folder, arrays


def words(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Words of any bits."""
    return random.integers(-(1 << 31), 1 << 31, shape).astype(np.int32)


def scales(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Float16 around 0.05, of either sign."""
    return (random.standard_normal(shape) * 0.05).astype(np.float16)


def stream(numbers: np.ndarray, bits: int, index: int) -> int:
    """Code `index` of a stream of bits in words, lowest first."""
    whole = 0
    for place, word in enumerate(numbers.tolist()):
        whole |= (word & 0xFFFFFFFF) << (32 * place)
    return (whole >> (bits * index)) & ((1 << bits) - 1)


def awq_parts(rows: int, cols: int, random: np.random.Generator) -> Arrays:
    """AutoAWQ's "gemm"."""
    return {
        "qweight": words(random, cols, rows // 8),
        "qzeros": words(random, cols // GROUP, rows // 8),
        "scales": scales(random, cols // GROUP, rows),
    }


def awq_weight(parts: Arrays) -> np.ndarray:
    """Place p of a word is column (0, 2, 4, 6, 1, 3, 5, 7)[p] of its eight."""
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    cols, rows = parts["qweight"].shape[0], parts["qweight"].shape[1] * 8
    weight = np.empty((rows, cols))
    for out in range(rows):
        word, shift = out // 8, 4 * order.index(out % 8)
        for at in range(cols):
            code = (int(parts["qweight"][at, word]) >> shift) & 15
            zero = (int(parts["qzeros"][at // GROUP, word]) >> shift) & 15
            weight[out, at] = (code - zero) * float(parts["scales"][at // GROUP, out])
    return weight


def gptq_parts(
    rows: int, cols: int, random: np.random.Generator, bits: int = 4, order: bool = False
) -> Arrays:
    """GPTQ; with `order` the inputs are shared out among the groups at random."""
    groups = cols // GROUP
    parts = {
        "qweight": words(random, cols * bits // 32, rows),
        "qzeros": words(random, groups, -(-rows * bits // 32)),
        "scales": scales(random, groups, rows),
    }
    if order:
        parts["g_idx"] = random.permutation(np.arange(cols) // GROUP).astype(np.int32)
    return parts


def gptq_weight(parts: Arrays, bits: int = 4, add: int = 1) -> np.ndarray:
    """`add` is 1 where zeros are stored less one."""
    cols, rows = parts["qweight"].shape[0] * 32 // bits, parts["qweight"].shape[1]
    weight = np.empty((rows, cols))
    for out in range(rows):
        for at in range(cols):
            group = int(parts["g_idx"][at]) if "g_idx" in parts else at // GROUP
            code = stream(parts["qweight"][:, out], bits, at)
            zero = (stream(parts["qzeros"][group], bits, out) + add) % (1 << bits)
            weight[out, at] = (code - zero) * float(parts["scales"][group, out])
    return weight


def packed_parts(
    rows: int, cols: int, random: np.random.Generator, bits: int = 4, symmetric: bool = True
) -> Arrays:
    """compressed-tensors, pack-quantized."""
    groups = cols // GROUP
    parts = {
        "weight_packed": words(random, rows, cols * bits // 32),
        "weight_scale": scales(random, rows, groups),
        "weight_shape": np.array([rows, cols], np.int64),
    }
    if not symmetric:
        parts["weight_zero_point"] = words(random, -(-rows * bits // 32), groups)
    return parts


def packed_weight(parts: Arrays, bits: int = 4) -> np.ndarray:
    """Codes and zeros are raised by half their range; without zeros that half is the zero."""
    rows, cols = parts["weight_shape"].tolist()
    weight = np.empty((rows, cols))
    for out in range(rows):
        for at in range(cols):
            group = int(parts["weight_g_idx"][at]) if "weight_g_idx" in parts else at // GROUP
            zero = 1 << (bits - 1)
            if "weight_zero_point" in parts:
                zero = stream(parts["weight_zero_point"][:, group], bits, out)
            code = stream(parts["weight_packed"][out], bits, at)
            weight[out, at] = (code - zero) * float(parts["weight_scale"][out, group])
    return weight


def e4m3(code: int) -> float:
    """Sign, four bits of exponent with a bias of 7, three of mantissa; below that, subnormals."""
    sign, exponent, mantissa = -1.0 if code >> 7 else 1.0, code >> 3 & 15, code & 7
    if exponent == 15 and mantissa == 7:
        return float("nan")
    if exponent == 0:
        return sign * mantissa / 8 * 2.0**-6
    return sign * (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def fp8_codes(random: np.random.Generator, rows: int, cols: int) -> np.ndarray:
    """Codes that are numbers."""
    codes = random.integers(0, 256, (rows, cols)).astype(np.uint8)
    return np.where(codes & 127 == 127, np.uint8(0), codes)


def fp8_weight(codes: np.ndarray, scale: np.ndarray, height: int, width: int) -> np.ndarray:
    """A scale per block; scale times number in float32."""
    weight = np.empty(codes.shape, np.float32)
    for (out, at), code in np.ndenumerate(codes):
        weight[out, at] = np.float32(e4m3(int(code))) * np.float32(
            scale[out // height, at // width]
        )
    return weight
