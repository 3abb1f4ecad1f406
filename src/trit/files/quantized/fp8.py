"""FP8 as DeepSeek and Qwen publish it, with a scale per block of 128 × 128, and its kin.

    weight            F8_E4M3 (out, in)
    weight_scale_inv  (out/128, in/128), by which the weight is multiplied, whatever its name says
    weight_scale      the same under other producers' name: one, or one per row

Scales of activations are left aside.
"""

from __future__ import annotations

from collections.abc import Mapping

from trit.files._tensor import Tensor
from trit.files.quantized import _fp8
from trit.files.quantized._module import Module, Settings

METHODS = ("fp8", "fbgemm_fp8")
PARTS = frozenset({"weight_scale_inv", "weight_scale"})
ANCHORS: Mapping[str, tuple[str, ...]] = {"weight": _fp8.TYPES}
ASIDE = frozenset(
    {"input_scale", "activation_scale", "input_scale_ub", "k_scale", "v_scale", "q_scale"}
)


def check(settings: Settings) -> str:
    """What the folder holds, in words."""
    block = _block(settings)
    return "FP8" + (f", blocks of {block[0]} × {block[1]}" if block else "")


def read(module: Module, settings: Settings) -> Tensor:
    """The weight of a linear; InvalidFileError for a scale that is missing or does not fit."""
    both = sorted(PARTS & module.parts)
    if len(both) > 1:
        raise module.error(both[0], f"expected one set of scales, got '{both[1]}' beside it.")
    return _fp8.matrix(module, both[0] if both else "weight_scale_inv", _block(settings))


def _block(settings: Settings) -> tuple[int, int] | None:
    size = settings.values.get("weight_block_size")
    if size is None:
        return None
    if (
        not isinstance(size, list)
        or len(size) != 2
        or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in size)
    ):
        raise settings.error("weight_block_size", f"expected two sizes, got {size!r:.40}.")
    return size[0], size[1]
