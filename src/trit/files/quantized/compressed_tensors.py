"""compressed-tensors: integers packed into words, bare int8, and 8-bit floats.

    weight_packed      int32 (out, in·bits/32)     a stream of bits along each row
    weight             int8 or F8_E4M3 (out, in)   in place of it
    weight_scale       one, (out, 1), (out, groups), or one per block
    weight_zero_point  int32 (out·bits/32, groups), a stream down each column; or int8 (out, groups)
    weight_shape       int64 (2,): out, in
    weight_g_idx       int32 (in,), the group of each input, -1 everywhere for none
    weight[o, i] = (code[o, i] - zero[o, g]) · scale[o, g]

Packed codes and zeros are raised by half their range, so that none is negative. What a linear is
made of shows in its tensors; config.json says how many bits there are and how long a group is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trit.files._tensor import Tensor
from trit.files.quantized import _fp8
from trit.files.quantized._grid import Bytes, Grid, Parts, pack, unpack, words
from trit.files.quantized._module import Groups, Module, Settings
from trit.files.safetensors import Stored

METHODS = ("compressed-tensors", "compressed_tensors")
PARTS = frozenset(
    {"weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"}
)
ANCHORS: Mapping[str, tuple[str, ...]] = {
    "weight_packed": ("I32",),
    "weight": ("I8", *_fp8.TYPES),
}
ASIDE = frozenset(
    {"input_scale", "input_zero_point", "output_scale", "output_zero_point", "k_scale", "v_scale",
     "q_scale", "input_global_scale"}
)  # fmt: skip

_FORMATS = ("dense", "pack-quantized", "int-quantized", "float-quantized", "naive-quantized",
            "mixed-precision")  # fmt: skip
_MOST_GROUPS = 64

Number = TypeVar("Number", bound=np.generic)


@dataclass(frozen=True)
class _Weights:
    """What a group of the configuration says of weights."""

    bits: int
    kind: str
    group: int | None
    block: tuple[int, int] | None
    symmetric: bool


def check(settings: Settings) -> str:
    """What the folder holds, in words; UnsupportedError for a variant that is not read."""
    for holder in (settings, *_holders(settings)):
        layout = holder.text("format", "dense")
        if layout not in _FORMATS:
            known = ", ".join(_FORMATS)
            raise settings.unsupported(f"compressed-tensors in '{layout}'; trit reads {known}.")
    if settings.values.get("transform_config"):
        raise settings.unsupported("compressed-tensors with transforms of the inputs is not read.")
    sparsity = settings.values.get("sparsity_config")
    if isinstance(sparsity, Mapping) and sparsity.get("format") not in (None, "dense"):
        raise settings.unsupported("compressed-tensors with sparse weights is not read.")
    said = [_words(weights) for weights in _all(settings)]
    return ", ".join(["compressed-tensors", *dict.fromkeys(said)])


def read(module: Module, settings: Settings) -> Tensor:
    """The weight of a linear; InvalidFileError for parts that do not go together."""
    known = _all(settings)
    if "weight_packed" in module.parts:
        return _packed(module, known)
    if module.stored("weight", "I8", *_fp8.TYPES).dtype == "I8":
        return _bare(module, known)
    blocks = [weights.block for weights in known if weights.block]
    return _fp8.matrix(module, "weight_scale", blocks[0] if blocks else None)


def _packed(module: Module, known: list[_Weights]) -> Tensor:
    packed = module.matrix("weight_packed", "I32")
    rows, cols = _shape(module)
    fitting = [
        weights
        for weights in known
        if weights.kind == "int" and packed.shape == (rows, words(cols, weights.bits))
    ]
    if len({weights.bits for weights in fitting}) != 1:
        allowed = " or ".join(str(weights.bits) for weights in known) or "no number of"
        raise module.error(
            "weight_packed",
            f"expected ({rows}, {cols}) weights of {allowed} bits, got words {packed.shape}.",
        )
    bits = fitting[0].bits
    return _integers(
        module, fitting, (rows, cols), bits, lambda: unpack(packed.numbers(), bits)[:, :cols]
    )


def _bare(module: Module, known: list[_Weights]) -> Tensor:
    stored = module.matrix("weight", "I8")
    rows, cols = stored.shape
    fitting = [weights for weights in known if weights.kind == "int"]
    return _integers(module, fitting, (rows, cols), 8, lambda: _raised(stored))


def _integers(
    module: Module,
    known: list[_Weights],
    shape: tuple[int, int],
    bits: int,
    codes: Callable[[], Bytes],
) -> Tensor:
    (rows, cols), scales = shape, module.floats("weight_scale")
    if scales.shape == (1,):
        groups, group = 1, cols
    else:
        groups, group = _groups(module, known, shape, scales)
    zeros = None
    if "weight_zero_point" in module.parts:
        zeros = module.stored("weight_zero_point", "I32", "I8")
        of = rows if scales.shape != (1,) else 1
        high = words(of, bits) if zeros.dtype == "I32" else of
        if zeros.shape != (1,) or (high, groups) != (1, 1):
            module.expect("weight_zero_point", zeros, (high, groups))
    elif not all(weights.symmetric for weights in known):
        raise module.error("weight_zero_point", "missing, and config.json says not symmetric.")
    order = None
    if "weight_g_idx" in module.parts:
        order = module.stored("weight_g_idx", "I32")
        module.expect("weight_g_idx", order, (cols,))

    def grid() -> Grid:
        found = scales.decode().reshape(-1, groups)
        return Grid(
            codes=codes(),
            zeros=_whole(_zeros(zeros, bits, len(found), groups), rows),
            scales=_whole(found, rows),
            group=group,
            columns=None if order is None else _columns(module, order, groups),
        )

    return module.tensor(shape, lambda: grid().weights())


def _groups(
    module: Module, known: list[_Weights], shape: tuple[int, int], scales: Tensor
) -> tuple[int, int]:
    """How many groups a row has, and their columns."""
    rows, cols = shape
    if scales.shape in ((rows,), (rows, 1)):
        return 1, cols
    sizes = {weights.group for weights in known if weights.group}
    for size in sorted(sizes):
        groups = -(-cols // size)
        if scales.shape == (rows, groups):
            return groups, size
    lengths = " or ".join(map(str, sorted(sizes))) or "no known length"
    raise module.error(
        "weight_scale", f"expected scales of {shape} in groups of {lengths}, got {scales.shape}."
    )


def _zeros(stored: Stored | None, bits: int, rows: int, groups: int) -> NDArray[np.int16]:
    """The raised zeros, int16 (rows, groups)."""
    if stored is None:
        return np.full((rows, groups), 1 << (bits - 1), np.int16)
    if stored.dtype == "I8":
        return stored.numbers().reshape(rows, groups).astype(np.int16) + np.int16(1 << (bits - 1))
    packed = stored.numbers().reshape(-1, groups)
    return unpack(packed.T, bits)[:, :rows].T.astype(np.int16)


def _whole(numbers: NDArray[Number], rows: int) -> NDArray[Number]:
    """One row for all, if need be."""
    return np.broadcast_to(numbers, (rows, numbers.shape[1]))


def _columns(module: Module, order: Stored, groups: int) -> Groups | None:
    numbers = order.numbers()
    if (numbers == -1).all():
        return None
    return module.groups_of("weight_g_idx", numbers, groups)


def _raised(stored: Stored) -> Bytes:
    return stored.numbers().view(np.uint8) ^ np.uint8(128)


def _shape(module: Module) -> tuple[int, int]:
    part = "weight_shape"
    numbers = module.stored(part, "I64", "I32").numbers()
    if numbers.shape != (2,) or (numbers < 1).any() or (numbers >= 1 << 31).any():
        raise module.error(part, f"expected two sizes, got {numbers.reshape(-1)[:4].tolist()}.")
    return int(numbers[0]), int(numbers[1])


def _holders(settings: Settings) -> list[Settings]:
    """The groups of the configuration."""
    groups = settings.values.get("config_groups")
    if groups is None:
        return []
    if not isinstance(groups, Mapping) or len(groups) > _MOST_GROUPS:
        raise settings.error("config_groups", f"expected an object of at most {_MOST_GROUPS}.")
    found = []
    for name, group in groups.items():
        if not isinstance(group, Mapping):
            raise settings.error(f"config_groups.{name:.40}", "expected an object.")
        found.append(Settings(group, settings.path))
    return found


def _all(settings: Settings) -> list[_Weights]:
    found = []
    for holder in _holders(settings):
        given = holder.values.get("weights")
        if given is None:  # only activations
            continue
        if not isinstance(given, Mapping):
            raise settings.error("config_groups.weights", "expected an object.")
        found.append(_weights(Settings(given, settings.path)))
    return found


def _weights(given: Settings) -> _Weights:
    bits, kind = given.integer(("num_bits",), 8), given.text("type", "int")
    if (kind, bits) != ("float", 8) and (kind != "int" or not 1 <= bits <= 8):
        raise given.unsupported(f"compressed-tensors of {bits} bits of {kind} is not read.")
    block = given.values.get("block_structure")
    if block is not None and not (
        isinstance(block, list)
        and len(block) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in block)
    ):
        raise given.error("block_structure", f"expected two sizes, got {block!r:.40}.")
    group = given.values.get("group_size")
    return _Weights(
        bits=bits,
        kind=kind,
        group=None if group is None else given.group_size(("group_size",)),
        block=None if block is None else (block[0], block[1]),
        symmetric=given.flag("symmetric", True),
    )


def _words(weights: _Weights) -> str:
    text = f"{weights.bits} bits" if weights.kind == "int" else "FP8"
    if weights.group:
        return f"{text}, groups of {weights.group}"
    return f"{text}, blocks of {weights.block[0]} × {weights.block[1]}" if weights.block else text


def config(bits: int, group: int, symmetric: bool, plain: list[str]) -> dict[str, object]:
    """`quantization_config` of a folder whose modules named in `plain` are left as they were."""
    weights = {
        "num_bits": bits,
        "type": "int",
        "symmetric": symmetric,
        "strategy": "group",
        "group_size": group,
        "dynamic": False,
    }
    settings = {"targets": ["Linear"], "weights": weights, "format": "pack-quantized"}
    return {
        "quant_method": METHODS[0],
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": settings},
        "ignore": plain,
    }


def parts(rows: int, cols: int, bits: int, group: int, symmetric: bool, scale: str) -> Parts:
    """What a linear is saved in: part -> type and shape; `scale` is the type of scales."""
    groups = cols // group
    found: Parts = {
        "weight_packed": ("I32", (rows, words(cols, bits))),
        "weight_scale": (scale, (rows, groups)),
        "weight_shape": ("I64", (2,)),
    }
    return (
        found if symmetric else found | {"weight_zero_point": ("I32", (words(rows, bits), groups))}
    )


def arrays(grid: Grid, bits: int, scale: str) -> dict[str, NDArray[np.generic]]:
    """The parts of a linear, scales as float32."""
    return {
        "weight_packed": pack(grid.codes, bits),
        "weight_scale": grid.scales,
        "weight_zero_point": pack(grid.zeros.astype(np.uint8).T, bits).T,
        "weight_shape": np.array(grid.codes.shape, np.int64),
    }
