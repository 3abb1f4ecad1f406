"""BitNet b1.58 as published with 2B-4T: the gate is relu². llama.cpp has no name for it.

Under `bitnet` llama.cpp would compute SiLU, and be wrong without a word; ik_llama.cpp reads this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trit.archs import _bitnet, _config, _decoder, _plain, _rope
from trit.archs._fields import Fields
from trit.archs._names import rename as _rename
from trit.plan import Plan

ARCH = "bitnet-b1.58"
HF_CLASSES = ("BitNetForCausalLM",)

complete = _bitnet.complete
extra_tensors = _plain.extra_tensors
transform = _plain.transform
hf_shapes = _bitnet.hf_shapes


def instead(config: Mapping[str, Any]) -> str | None:
    """The architecture of a model of these classes that is not of this one."""
    return "bitnet" if _bitnet.is_silu(config) else None


def metadata_from_hf(config: Mapping[str, Any], path: object = "config.json") -> dict[str, Any]:
    """GGUF keys of a completed config. Raises InvalidFileError, UnsupportedError."""
    _config.check_activation(config, ("relu2",), path)
    return _bitnet.metadata_from_hf(config, ARCH, path)


def rename(hf_name: str) -> str | None:
    """The GGUF name of an HF tensor, None for one that is left out."""
    return _rename(hf_name, _bitnet.LAYER)


def plan(
    metadata: Mapping[str, Any],
    shapes: _decoder.Shapes,
    read: _rope.Read,
    *,
    path: object = "model",
    context: int | None = None,
) -> Plan:
    """The plan, from GGUF keys and tensor shapes; `read` gives a small tensor as float32."""
    return _bitnet.plan(Fields(metadata, path, f"{ARCH}."), shapes, read, context, "relu2")
