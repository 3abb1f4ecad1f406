"""GPTQ: 2 to 8 bits, integer zeros, groups along the inputs or wherever `g_idx` says.

    qweight  int32 (in·bits/32, out)      codes as a stream of bits down each column
    qzeros   int32 (groups, out·bits/32)  a stream along each row; in version 1 one less than meant
    scales   float16 (groups, out)
    g_idx    int32 (in,)                  the group of each input; absent: in order
    weight[o, i] = (code[i, o] - zero[g, o]) · scale[g, o]

A zero of 0 is -1 in version 1, which its bits cannot hold: it wraps around, and back here.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from trit.files._tensor import Tensor
from trit.files.quantized._grid import WORD_BITS, Grid, unpack, words
from trit.files.quantized._module import Module, Settings

METHODS = ("gptq",)
PARTS = frozenset({"qweight", "qzeros", "scales", "g_idx"})
ANCHORS: Mapping[str, tuple[str, ...]] = {"qweight": ("I32",)}
ASIDE: frozenset[str] = frozenset()

_BITS = (2, 3, 4, 8)
_LAYOUTS = {"gptq": 1, "gptq_v2": 0}  # what is added to a stored zero


def check(settings: Settings) -> str:
    """What the folder holds, in words; UnsupportedError for a variant that is not read."""
    bits = settings.integer(("bits",))
    if bits not in _BITS:
        raise settings.unsupported(f"GPTQ of {bits} bits; trit reads 2, 3, 4 and 8.")
    layout = _layout(settings)
    if layout not in _LAYOUTS:
        known = ", ".join(_LAYOUTS)
        raise settings.unsupported(f"GPTQ in the layout '{layout}'; trit reads {known}.")
    # Rules by which some linears differ. What is left out of quantization shows by its name.
    rules = settings.values.get("dynamic")
    if rules and not (isinstance(rules, Mapping) and all(str(r).startswith("-") for r in rules)):
        raise settings.unsupported("GPTQ with 'dynamic' settings per linear is not read.")
    group = settings.group_size(("group_size",))
    return f"GPTQ, {bits} bits, " + (f"groups of {group}" if group else "one group a row")


def read(module: Module, settings: Settings) -> Tensor:
    """The weight of a linear; InvalidFileError for parts that do not go together."""
    bits, offset = settings.integer(("bits",)), _LAYOUTS[_layout(settings)]
    packed = module.matrix("qweight", "I32")
    rows = packed.shape[1]
    if packed.shape[0] * WORD_BITS % bits:
        raise module.error("qweight", f"{packed.shape[0]} words hold no whole codes of {bits} bits")
    cols = packed.shape[0] * WORD_BITS // bits
    group = settings.group_size(("group_size",)) or cols
    groups = -(-cols // group)
    zeros, scales = module.matrix("qzeros", "I32"), module.floats("scales")
    module.expect("qzeros", zeros, (groups, words(rows, bits)))
    module.expect("scales", scales, (groups, rows))
    order = None
    if "g_idx" in module.parts:
        order = module.stored("g_idx", "I32")
        module.expect("g_idx", order, (cols,))

    def grid() -> Grid:
        meant = (unpack(zeros.numbers(), bits)[:, :rows] + np.uint8(offset)) & ((1 << bits) - 1)
        columns = None if order is None else module.groups_of("g_idx", order.numbers(), groups)
        if columns is not None and np.array_equal(columns, np.arange(cols) // group):
            columns = None
        return Grid(
            codes=unpack(packed.numbers().T, bits),
            zeros=np.ascontiguousarray(meant.T).astype(np.int16),
            scales=np.ascontiguousarray(scales.decode().T),
            group=group,
            columns=columns,
        )

    return module.tensor((rows, cols), lambda: grid().weights())


def _layout(settings: Settings) -> str:
    key = "checkpoint_format" if "checkpoint_format" in settings.values else "format"
    return settings.text(key, "gptq")
