"""Phi-3 and Phi-4: one matrix for Q, K and V, one for gate and up, and LongRoPE.

LongRoPE has two sets of divisors; the plan holds the one that its context asks for, and says in
`context_length` how far it reaches. A window (Phi-3 mini 4k) is honoured; llama.cpp ignores it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trit.archs import _config, _decoder, _plain, _rope
from trit.archs._fields import Fields, float32, is_list
from trit.archs._names import rename as _rename
from trit.errors import UnsupportedError
from trit.plan import Plan

ARCH = "phi3"
HF_CLASSES = ("Phi3ForCausalLM",)
transform = _plain.transform

_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}

_DEFAULTS = {
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "max_position_embeddings": 4096,
    "original_max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "vocab_size": 32064,
    "tie_word_embeddings": False,
}


def complete(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`config` with the values its class fills in."""
    return _config.merged(config, _DEFAULTS)


def metadata_from_hf(config: Mapping[str, Any], path: object = "config.json") -> dict[str, Any]:
    """GGUF keys of a completed config. Raises InvalidFileError, UnsupportedError."""
    _config.check_activation(config, ("silu", "swish"), path)
    fields = Fields(config, path)
    keys = _config.sizes(config, ARCH, path)
    width, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    rope = Fields(_longrope(config, path), path)
    part = rope.number("partial_rotary_factor", 1.0, high=1.0)
    original = rope.count("original_max_position_embeddings", low=2)
    keys[f"{ARCH}.rope.dimension_count"] = int(part * width) // heads
    keys[f"{ARCH}.rope.freq_base"] = float32(rope.number("rope_theta"))
    keys[f"{ARCH}.rope.scaling.original_context_length"] = original
    window = fields.count("sliding_window", 0, low=0)
    keys[f"{ARCH}.attention.sliding_window"] = window
    if rope.has("long_factor"):
        stretch = fields.count("max_position_embeddings") / original
        factor = rope.number("factor", stretch)
        usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
        magnitude = rope.number("attention_factor", usual)
        keys[f"{ARCH}.rope.scaling.attn_factor"] = float32(magnitude)
    return keys


def _longrope(config: Mapping[str, Any], path: object) -> dict[str, Any]:
    """The rope parameters, checked to be of a kind that Phi-3 has."""
    parameters, _ = _config.rope_parameters(config, path)
    kind = parameters["rope_type"]
    if kind not in ("default", "longrope", "su"):
        raise UnsupportedError(f"{path}: rope scaling {kind!r} is not supported for {ARCH}.")
    if kind != "default" and not parameters.get("long_factor"):
        raise Fields(parameters, path).error("long_factor", "missing from the rope parameters.")
    return parameters


def extra_tensors(
    config: Mapping[str, Any], path: object = "config.json"
) -> dict[str, npt.NDArray[np.float32]]:
    """Tensors a GGUF has and the folder has not: the divisors of LongRoPE."""
    parameters = _longrope(config, path)
    tensors = {}
    for field, name in (("long_factor", _rope.LONG), ("short_factor", _rope.SHORT)):
        if not parameters.get("long_factor"):
            return {}
        values = parameters.get(field)
        if values is None or not is_list(values):
            raise Fields(parameters, path).error(field, "expected an array of numbers.")
        items = Fields({f"{field}.{i}": value for i, value in enumerate(values)}, path)
        tensors[name] = np.array([items.number(key) for key in items.values], dtype=np.float32)
    return tensors


def rename(hf_name: str) -> str | None:
    """The GGUF name of an HF tensor, None for one that is left out."""
    return _rename(hf_name, _LAYER)


def plan(
    metadata: Mapping[str, Any],
    shapes: _decoder.Shapes,
    read: _rope.Read,
    *,
    path: object = "model",
    context: int | None = None,
) -> Plan:
    """The plan, from GGUF keys and tensor shapes; `read` gives a small tensor as float32.

    `context` (positions) chooses the short or the long divisors; None takes the whole context.
    """
    keys = Fields(metadata, path, f"{ARCH}.")
    sizes = _decoder.read_sizes(keys, shapes)
    positions = context or sizes.context_length
    rope = _rope.scaled(keys, sizes.head_dim, shapes, read, "halves", positions)
    if _rope.factors_name(keys, shapes, positions) == _rope.SHORT:
        reach = min(sizes.context_length, _rope.original_context(keys))
        sizes = replace(sizes, context_length=reach)
    window = keys.count("attention.sliding_window", 0, low=0) or None
    traits = _decoder.Traits(
        ropes=(rope,) * sizes.layers,
        windows=(window,) * sizes.layers,
        attention_scale=1.0 / math.sqrt(sizes.head_dim),
    )
    return _decoder.build(keys, sizes, shapes, traits)
