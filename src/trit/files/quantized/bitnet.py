"""BitNet b1.58 in both published forms: packed ternary digits, and the float master of them.

    weight        U8 (out/4, in): row i·out/4 + r is in bits 2i of row r, digit + 1
    weight_scale  one number, by which digits are divided (linear_class bitlinear) or multiplied
                  (autobitlinear, as BitNet-2B-4T has it)

A master ("quantization_mode": "online") is rounded whenever it is used: digits are
clamp(round(W / s), -1, 1) with s = mean |W|, their unit is s.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trit import formats
from trit.files._tensor import Bytes, Tensor
from trit.files.quantized._module import Module, Settings

METHODS = ("bitnet",)
PARTS = frozenset({"weight_scale"})
ANCHORS: Mapping[str, tuple[str, ...]] = {"weight": ("U8",)}
ASIDE: frozenset[str] = frozenset()

SMALLEST = np.float32(1e-5)  # of mean |W|
_FLOAT_MATRICES = ("embed_tokens", "lm_head")

Floats = NDArray[np.float32]


def check(settings: Settings) -> str:
    """What the folder holds, in words; UnsupportedError for a variant that is not read."""
    if settings.flag("use_rms_norm", False):
        raise settings.unsupported("BitNet with a norm in every linear is not read.")
    kind, mode = settings.text("linear_class", "bitlinear"), settings.text("quantization_mode")
    if kind not in ("bitlinear", "autobitlinear"):
        raise settings.error("linear_class", f"expected bitlinear or autobitlinear, got '{kind}'.")
    if mode not in ("", "offline", "online"):
        raise settings.error("quantization_mode", f"expected offline or online, got '{mode}'.")
    return "BitNet, a float master" if _online(settings) else "BitNet, packed ternary digits"


def read(module: Module, settings: Settings) -> Tensor:
    """The weight of a linear; InvalidFileError for a scale that is missing or does not fit."""
    packed, scale = module.matrix("weight", "U8"), module.floats("weight_scale")
    if scale.shape not in ((), (1,)):
        raise module.error("weight_scale", f"expected one number, got shape {scale.shape}.")
    divides = settings.text("linear_class", "bitlinear") == "bitlinear"

    def decode() -> Floats:
        unit = np.float32(scale.decode().reshape(-1)[0])
        if not (np.isfinite(unit) and unit != 0):
            raise module.error("weight_scale", f"expected a finite number, not 0, got {unit}.")
        digits = unpack(packed.data.view(np.uint8).reshape(packed.shape))
        if (digits > 1).any():
            at = np.argwhere(digits > 1)[0].tolist()
            raise module.error("weight", f"expected digits of -1, 0 and 1, got 2 at {at}.")
        return digits / unit if divides else digits * unit

    return module.tensor((4 * packed.shape[0], packed.shape[1]), decode)


def plain(tensor: Tensor, settings: Settings) -> Tensor:
    """A tensor that is stored as floats: of a master, its linears are rounded when asked."""
    left = settings.values.get("modules_to_not_convert")
    kept = (*_FLOAT_MATRICES, *(left if isinstance(left, list) else ()))
    if not _online(settings) or len(tensor.shape) != 2 or any(str(k) in tensor.name for k in kept):
        return tensor

    def data() -> Bytes:
        return np.ascontiguousarray(rounded(tensor.decode()), dtype="<f4").view(np.uint8)

    return Tensor(tensor.name, tensor.shape, formats.get("f32"), data)


def rounded(weights: Floats) -> Floats:
    """A float master (rows, cols) as it is used: -s, 0 and s for s = mean |W|."""
    mean = np.float32(np.abs(weights).mean(dtype=np.float64))
    scale = np.float32(1) / max(mean, SMALLEST)
    values: Floats = np.clip(np.rint(weights * scale), -1, 1) / scale
    return values


def unpack(packed: Bytes) -> Floats:
    """Bytes (rows/4, cols) -> digits (rows, cols) of -1 … 2."""
    return np.concatenate([(packed >> (2 * i)) & 3 for i in range(4)]).astype(np.float32) - 1


def pack(digits: NDArray[np.integer]) -> Bytes:
    """Digits (rows, cols) of -1, 0 and 1 -> bytes (rows/4, cols); rows are a multiple of 4."""
    codes = (digits + 1).astype(np.uint8).reshape(4, -1, digits.shape[1])
    packed: Bytes = codes[0] | codes[1] << 2 | codes[2] << 4 | codes[3] << 6
    return packed


def _online(settings: Settings) -> bool:
    return settings.text("quantization_mode") == "online"
