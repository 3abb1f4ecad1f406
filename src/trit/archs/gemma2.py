"""Gemma 2: norms on both sides of each part, soft caps, every other layer with a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from trit.archs import _config, _decoder, _gemma, _plain, _rope, _windows
from trit.archs._fields import Fields, float32
from trit.archs._names import GEMMA_LAYER
from trit.archs._names import rename as _rename
from trit.plan import Plan

ARCH = "gemma2"
HF_CLASSES = ("Gemma2ForCausalLM",)
extra_tensors = _plain.extra_tensors

_LAYERS_OF_27B = 46
_PERIOD = 2

_DEFAULTS = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "vocab_size": 256000,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "tie_word_embeddings": True,
}


def complete(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`config` with the values its class fills in."""
    return _config.merged(config, _DEFAULTS)


def metadata_from_hf(config: Mapping[str, Any], path: object = "config.json") -> dict[str, Any]:
    """GGUF keys of a completed config. Raises InvalidFileError, UnsupportedError."""
    _gemma.check(config, path)
    fields = Fields(config, path)
    keys = _config.sizes(config, ARCH, path) | _config.head_length(config, ARCH, path)
    # 0 is how a key says "no cap"; without the key a reader takes the published model's caps.
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        keys[f"{ARCH}.{name}"] = float32(fields.optional_number(name) or 0.0)
    keys[f"{ARCH}.attention.sliding_window"] = fields.count("sliding_window")
    layers = fields.count("num_hidden_layers")
    listed = _config.sliding_layers(config, path)
    if listed is not None and listed != _windows.periodic(layers, _PERIOD):
        keys[f"{ARCH}.attention.sliding_window_pattern"] = list(listed)
    parameters, _ = _config.rope_parameters(config, path)
    rope = _config.rope(parameters, config, ARCH, path)
    if rope != {f"{ARCH}.rope.freq_base": 10000.0}:
        keys |= rope
    return keys | _gemma.scale_key(config, _LAYERS_OF_27B, path)


def rename(hf_name: str) -> str | None:
    """The GGUF name of an HF tensor, None for one that is left out."""
    return _rename(hf_name, GEMMA_LAYER)


def transform(
    gguf_name: str, array: npt.NDArray[Any], metadata: Mapping[str, Any]
) -> npt.NDArray[Any]:
    """Add one to the norms."""
    return _gemma.transform(gguf_name, array)


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
    sizes = _decoder.read_sizes(keys, shapes)
    positions = context or sizes.context_length
    rope = _rope.scaled(keys, sizes.head_dim, shapes, read, "halves", positions)
    window = keys.count("attention.sliding_window", 4096, low=0) or None
    slides = _windows.sliding(keys, sizes.layers, _PERIOD)
    traits = _decoder.Traits(
        ropes=(rope,) * sizes.layers,
        windows=tuple(window if slide else None for slide in slides),
        attention_scale=_gemma.attention_scale(keys, sizes, _LAYERS_OF_27B),
        activation="gelu",
        post_norms=True,
        attention_soft_cap=_cap(keys, "attn_logit_softcapping", 50.0),
        embedding_scale=_gemma.embedding_scale(sizes.width),
        head_soft_cap=_cap(keys, "final_logit_softcapping", 30.0),
    )
    return _decoder.build(keys, sizes, shapes, traits)


def _cap(keys: Fields, key: str, default: float) -> float | None:
    return keys.optional_number(key) if keys.has(key) else default
