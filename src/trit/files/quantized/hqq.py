"""HQQ, as its package and transformers save it: zeros that need not be whole, and who says what.

    W_q    uint8, or int32 for 3 bits (n/k, group)   k codes a word; n groups, row by row of weights
    scale  one of F16, BF16, F32 (n, 1)              as is zero
    shape  int64 (2,): out, in
    weight, seen as (n, group): (code[g, i] - zero[g]) · scale[g]

The words hold the groups one k-th after the other, the first in the highest bits: of 4 bits, word
[r, i] has code [r, i] above and code [r + n/2, i] below. With axis 0 groups are columns: all is
(group, n) in place of (n, group), and scale and zero (1, n).

Every linear has its settings beside it as numbers, words as their characters; none of them but
nbits, group_size, axis and packing say what the weights are. Read and written as hqq 0.2.8 does,
hqq/core/bitpack.py and HQQLinear.state_dict of its quantize.py.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trit.files._tensor import Floats, Tensor
from trit.files.quantized._grid import Grid, Parts
from trit.files.quantized._module import Module, Settings

METHODS = ("hqq",)
_FLAGS = ("view_as_float", "quant_scale", "quant_zero", "offload_meta", "encoded_state_dict",
          "stores_quant_config", "channel_wise", "optimize", "round_zero")  # fmt: skip
_TRUE = ("encoded_state_dict", "stores_quant_config", "channel_wise", "optimize")
_NUMBERS = ("nbits", "group_size", "axis")
_WORDS = ("packing", "unpack_view_dtype", "compute_dtype")
PARTS = frozenset({"W_q", "scale", "zero", "shape", *_FLAGS, *_NUMBERS, *_WORDS})
ANCHORS: Mapping[str, tuple[str, ...]] = {"W_q": ("U8", "I32")}
ASIDE: frozenset[str] = frozenset()

PER_WORD = {8: 1, 4: 2, 3: 10, 2: 4, 1: 8}  # bits -> codes of a word
_PACKING = {bits: f"{bits}bit_{'32' if bits == 3 else 'u8'}" for bits in PER_WORD}
_TORCH = {"F16": "torch.float16", "BF16": "torch.bfloat16", "F32": "torch.float32"}


def check(settings: Settings) -> str:
    """What the folder holds, in words; its linears say the rest."""
    given = settings.values.get("quant_config")
    if not isinstance(given, Mapping):
        raise settings.error("quant_config", "expected an object.")
    params = given.get("weight_quant_params")
    if not isinstance(params, Mapping):  # by the names of linears
        return "HQQ"
    one = Settings(params, settings.path)
    bits, group = one.integer(("nbits",)), one.integer(("group_size",), -1)
    return f"HQQ, {bits} bits, " + (f"groups of {group}" if group > 0 else "one group a row")


def read(module: Module, settings: Settings) -> Tensor:
    """The weight of a linear; InvalidFileError for parts that do not go together."""
    bits, group, axis = (_number(module, part) for part in _NUMBERS)
    for flag in ("view_as_float", "quant_scale", "quant_zero"):
        if flag in module.parts and _number(module, flag):
            raise settings.unsupported(f"HQQ with {flag} is not read ({module.name}).")
    if bits not in PER_WORD or _text(module, "packing") != _PACKING[bits]:
        raise settings.unsupported(
            f"HQQ of {bits} bits packed as '{_text(module, 'packing')}' is not read "
            f"({module.name}); trit reads {', '.join(_PACKING.values())}."
        )
    numbers = module.stored("shape", "I64", "I32").numbers()
    if numbers.shape != (2,) or (numbers < 1).any() or (numbers >= 1 << 31).any():
        problem = f"expected two sizes, got {numbers.reshape(-1)[:4].tolist()}."
        raise module.error("shape", problem)
    rows, cols = (int(number) for number in numbers)
    if group < 1 or rows * cols % group:
        problem = f"expected a divisor of {rows} · {cols} weights, got {group}."
        raise module.error("group_size", problem)
    if axis not in (0, 1):
        raise module.error("axis", f"expected 0 or 1, got {axis}.")
    groups = rows * cols // group
    high, wide = (groups, group) if axis == 1 else (group, groups)
    packed = module.matrix("W_q", "I32" if bits == 3 else "U8")
    module.expect("W_q", packed, (-(-high // PER_WORD[bits]), wide))
    scales, zeros = module.floats("scale"), module.floats("zero")
    for part, found in (("scale", scales), ("zero", zeros)):
        module.expect(part, found, (groups, 1) if axis == 1 else (1, groups))

    def weights() -> Floats:
        values = unpack(packed.numbers(), bits)[:high].astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # for those who check weights to find
            values -= zeros.decode()
            values *= scales.decode()
        return values.reshape(rows, cols)

    return module.tensor((rows, cols), weights)


def _number(module: Module, part: str) -> int:
    found = module.stored(part, "I32", "I64", "U8")
    module.expect(part, found, ())
    return int(found.numbers()[()])


def _text(module: Module, part: str) -> str:
    found = module.stored(part, "U8")
    return bytes(found.data[:32]).decode("ascii", "replace")


def unpack(words: NDArray[np.integer], bits: int) -> NDArray[np.integer]:
    """Words (n, cols) -> codes (n · k, cols)."""
    per = PER_WORD[bits]
    mask = words.dtype.type((1 << bits) - 1)
    parts = [words >> words.dtype.type(bits * (per - 1 - i)) & mask for i in range(per)]
    return np.concatenate(parts)


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.integer]:
    """The inverse of `unpack`: uint8 (n, cols) -> words (⌈n / k⌉, cols), filled up with zeros."""
    per = PER_WORD[bits]
    assert codes.size == 0 or int(codes.max()) < 1 << bits, f"a code does not fit {bits} bits"
    step = -(-len(codes) // per)
    dtype = np.dtype(np.int32 if bits == 3 else np.uint8)
    words = np.zeros((step, codes.shape[1]), dtype)
    for i in range(per):
        part = codes[i * step : (i + 1) * step].astype(dtype)
        words[: len(part)] |= part << dtype.type(bits * (per - 1 - i))
    return words


def config(bits: int, group: int, symmetric: bool, plain: list[str]) -> dict[str, object]:
    """`quantization_config` of a folder whose modules named in `plain` are left as they were."""
    assert bits in PER_WORD and not symmetric
    params = {"nbits": bits, "group_size": group, "axis": 1}
    params |= {"channel_wise": True, "optimize": True, "round_zero": False, "view_as_float": False}
    settings = {"weight_quant_params": params, "offload_meta": False}
    settings |= {"scale_quant_params": None, "zero_quant_params": None}
    return {"quant_method": METHODS[0], "quant_config": settings, "skip_modules": plain}


def parts(rows: int, cols: int, bits: int, group: int, symmetric: bool, scale: str) -> Parts:
    """What a linear is saved in: part -> type and shape; `scale` is the type of scales."""
    assert not symmetric
    groups = rows * cols // group
    words = ("I32" if bits == 3 else "U8", (-(-groups // PER_WORD[bits]), group))
    found: Parts = {"W_q": words, "scale": (scale, (groups, 1)), "zero": (scale, (groups, 1))}
    found |= {"shape": ("I64", (2,))} | dict.fromkeys(_NUMBERS, ("I32", ()))
    found |= {name: ("U8", (len(text),)) for name, text in _texts(bits, scale).items()}
    return found | dict.fromkeys(_FLAGS, ("U8", ()))


def arrays(grid: Grid, bits: int, scale: str) -> dict[str, NDArray[np.generic]]:
    """The parts of a linear, scales and zeros as float32."""
    numbers = dict(zip(_NUMBERS, (bits, grid.group, 1), strict=True))
    made: dict[str, NDArray[np.generic]] = {
        "W_q": pack(grid.codes.reshape(-1, grid.group), bits),
        "scale": grid.scales.reshape(-1, 1),
        "zero": grid.zeros.astype(np.float32).reshape(-1, 1),
        "shape": np.array(grid.codes.shape, np.int64),
    }
    made |= {part: np.array(number, np.int32) for part, number in numbers.items()}
    made |= {part: np.array(part in _TRUE, np.uint8) for part in _FLAGS}
    texts = _texts(bits, scale)
    return made | {part: np.frombuffer(text.encode(), np.uint8) for part, text in texts.items()}


def _texts(bits: int, scale: str) -> dict[str, str]:
    kind = "torch.int32" if bits == 3 else "torch.uint8"
    return dict(zip(_WORDS, (_PACKING[bits], kind, _TORCH[scale]), strict=True))
