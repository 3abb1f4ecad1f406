"""BitNet b1.58 as llama.cpp knows it: the gate is SiLU, the head is the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trit.archs import _bitnet, _config, _decoder, _plain, _rope
from trit.archs._fields import Fields
from trit.archs._names import rename as _rename
from trit.errors import UnsupportedError
from trit.plan import Plan

ARCH = "bitnet"
HF_CLASSES = ("BitnetForCausalLM",)  # and BitNetForCausalLM with SiLU: see bitnet_b158.py

complete = _bitnet.complete
extra_tensors = _plain.extra_tensors
transform = _plain.transform


def metadata_from_hf(config: Mapping[str, Any], path: object = "config.json") -> dict[str, Any]:
    """GGUF keys of a completed config. Raises InvalidFileError, UnsupportedError."""
    _config.check_activation(config, ("silu", "swish"), path)
    if config.get("tie_word_embeddings") is not True:
        raise UnsupportedError(
            f"{path}: BitNet with SiLU and a head of its own has no GGUF architecture: llama.cpp's "
            "takes the embedding for it."
        )
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
    return _bitnet.plan(Fields(metadata, path, f"{ARCH}."), shapes, read, context, "silu")
