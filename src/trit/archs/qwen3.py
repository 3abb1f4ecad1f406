"""Qwen3 (dense): Llama's shape with a norm on every head of Q and K; rope turns halves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trit.archs import _config, _decoder, _plain, _rope
from trit.archs._fields import Fields
from trit.archs._names import HEAD_NORMS, LLAMA_LAYER
from trit.archs._names import rename as _rename
from trit.plan import Plan

ARCH = "qwen3"
HF_CLASSES = ("Qwen3ForCausalLM",)
extra_tensors = _plain.extra_tensors
transform = _plain.transform

_DEFAULTS = {
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "vocab_size": 151936,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "tie_word_embeddings": False,
}


def complete(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`config` with the values its class fills in."""
    return _config.merged(config, _DEFAULTS)


def metadata_from_hf(config: Mapping[str, Any], path: object = "config.json") -> dict[str, Any]:
    """GGUF keys of a completed config. Raises InvalidFileError, UnsupportedError."""
    _config.check_activation(config, ("silu", "swish"), path)
    parameters, _ = _config.rope_parameters(config, path)
    keys = _config.sizes(config, ARCH, path) | _config.rope(parameters, config, ARCH, path)
    keys |= _config.head_length(config, ARCH, path)
    return keys | _config.qwen_windows(config, path)


def rename(hf_name: str) -> str | None:
    """The GGUF name of an HF tensor, None for one that is left out."""
    return _rename(hf_name, LLAMA_LAYER | HEAD_NORMS)


def plan(
    metadata: Mapping[str, Any],
    shapes: _decoder.Shapes,
    read: _rope.Read,
    *,
    path: object = "model",
    context: int | None = None,
) -> Plan:
    """The plan, from GGUF keys and tensor shapes; `read` gives a small tensor as float32."""
    keys = Fields(metadata, path, f"{ARCH}.")
    return _decoder.plain(keys, shapes, read, context, "halves", head_norms=True)
