"""AWQ, the layout "gemm": 4 bits, groups along the inputs, integer zeros.

qweight  int32 (in, out/8)      eight codes a word, in the order of `_ORDER`
qzeros   int32 (in/group, out/8)
scales   float16 (in/group, out)
weight[o, i] = (code[i, o] - zero[i/group, o]) · scale[i/group, o]
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trit.files._tensor import Tensor
from trit.files.quantized._grid import Bytes, Grid, Parts, pack, unpack
from trit.files.quantized._module import Module, Settings

METHODS = ("awq",)
PARTS = frozenset({"qweight", "qzeros", "scales"})
ANCHORS: Mapping[str, tuple[str, ...]] = {"qweight": ("I32",)}
ASIDE: frozenset[str] = frozenset()

BITS = 4
_PER_WORD = 8
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the column of the code at each place of a word


def check(settings: Settings) -> str:
    """What the folder holds, in words; UnsupportedError for a variant that is not read."""
    bits = settings.integer(("bits", "w_bit"))
    version = settings.text("version", "gemm")
    if bits != BITS or version != "gemm":
        raise settings.unsupported(
            f"AWQ of {bits} bits in the layout '{version}'; trit reads 4 bits in 'gemm'."
        )
    if not settings.flag("zero_point", True):
        raise settings.unsupported("AWQ without zero points is not read.")
    group = settings.group_size(("group_size", "q_group_size"))
    return "AWQ, 4 bits, " + (f"groups of {group}" if group else "one group a row")


def read(module: Module, settings: Settings) -> Tensor:
    """The weight of a linear; InvalidFileError for parts that do not go together."""
    packed = module.matrix("qweight", "I32")
    cols, rows = packed.shape[0], packed.shape[1] * _PER_WORD
    group = settings.group_size(("group_size", "q_group_size")) or cols
    if cols % group:
        raise module.error("qweight", f"expected a multiple of {group} inputs, got {cols}.")
    groups = cols // group
    zeros, scales = module.matrix("qzeros", "I32"), module.floats("scales")
    module.expect("qzeros", zeros, (groups, packed.shape[1]))
    module.expect("scales", scales, (groups, rows))

    def grid() -> Grid:
        return Grid(
            codes=_columns(unpack(packed.numbers(), BITS)),
            zeros=_columns(unpack(zeros.numbers(), BITS)).astype(np.int16),
            scales=np.ascontiguousarray(scales.decode().T),
            group=group,
        )

    return module.tensor((rows, cols), lambda: grid().weights())


def _columns(codes: Bytes) -> Bytes:
    """Codes (inputs, outputs) in the order of the words -> (outputs, inputs)."""
    inputs, outputs = codes.shape
    by_place = codes.reshape(inputs, outputs // _PER_WORD, _PER_WORD)
    ordered = by_place[:, :, np.argsort(_ORDER)]
    return np.ascontiguousarray(ordered.reshape(inputs, outputs).T)


def config(bits: int, group: int, symmetric: bool, plain: list[str]) -> dict[str, object]:
    """`quantization_config` of a folder whose modules named in `plain` are left as they were."""
    assert bits == BITS and not symmetric
    return {
        "quant_method": "awq",
        "bits": bits,
        "group_size": group,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": plain or None,
    }


def parts(rows: int, cols: int, bits: int, group: int, symmetric: bool, scale: str) -> Parts:
    """What a linear is saved in: part -> type and shape; `scale` is the type of scales."""
    assert bits == BITS and not symmetric
    groups = cols // group
    return {
        "qweight": ("I32", (cols, rows // _PER_WORD)),
        "qzeros": ("I32", (groups, rows // _PER_WORD)),
        "scales": (scale, (groups, rows)),
    }


def arrays(grid: Grid, bits: int, scale: str) -> dict[str, NDArray[np.generic]]:
    """The parts of a linear, scales as float32; rows are a multiple of eight."""
    return {
        "qweight": _words(grid.codes),
        "qzeros": _words(grid.zeros.astype(np.uint8)),
        "scales": grid.scales.T,
    }


def _words(codes: Bytes) -> NDArray[np.int32]:
    """Codes (outputs, inputs) -> words (inputs, outputs/8)."""
    by_place = codes.T.reshape(codes.shape[1], -1, _PER_WORD)[:, :, list(_ORDER)]
    return pack(by_place.reshape(codes.shape[1], -1), BITS)
