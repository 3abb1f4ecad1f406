"""Gemma 3 (text): Gemma 2 with head norms for soft caps, five windows to one full layer.

Layers with a window have their own rope base and no scaling. The text part of the models with
images is read the same way; the image part is left out, as the converters leave it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from trit.archs import _config, _decoder, _gemma, _plain, _rope, _windows
from trit.archs._fields import Fields, float32
from trit.archs._names import GEMMA_LAYER, HEAD_NORMS
from trit.archs._names import rename as _rename
from trit.errors import UnsupportedError
from trit.plan import Plan

ARCH = "gemma3"
HF_CLASSES = ("Gemma3ForCausalLM", "Gemma3ForConditionalGeneration")
extra_tensors = _plain.extra_tensors

_LAYERS_OF_27B = 62
_PERIOD = 6
_LOCAL_BASE = 10000.0

_DEFAULTS = {
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "vocab_size": 262208,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": _LOCAL_BASE,
    "tie_word_embeddings": True,
}


def complete(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`config` with the values its class fills in."""
    return _config.merged(config, _DEFAULTS)


def metadata_from_hf(config: Mapping[str, Any], path: object = "config.json") -> dict[str, Any]:
    """GGUF keys of a completed config. Raises InvalidFileError, UnsupportedError."""
    _gemma.check(config, path)
    if config.get("attn_logit_softcapping") is not None:
        raise UnsupportedError(f"{path}: soft-capped attention is not supported for {ARCH}.")
    fields = Fields(config, path)
    keys = _config.sizes(config, ARCH, path) | _config.head_length(config, ARCH, path)
    full, local = _config.rope_parameters(config, path)
    keys |= _config.rope(full, config, ARCH, path)
    keys[f"{ARCH}.rope.freq_base_swa"] = _local_base(config, local, path)
    if (cap := fields.optional_number("final_logit_softcapping")) is not None:
        keys[f"{ARCH}.final_logit_softcapping"] = float32(cap)
    return keys | _window_keys(config, path) | _gemma.scale_key(config, _LAYERS_OF_27B, path)


def _local_base(config: Mapping[str, Any], local: Mapping[str, Any] | None, path: object) -> float:
    if local is None:
        return float32(Fields(config, path).number("rope_local_base_freq"))
    fields = Fields(local, path)
    if fields.text("rope_type", "default") != "default":
        raise UnsupportedError(f"{path}: scaled rope in layers with a window is not supported.")
    return float32(fields.number("rope_theta", _LOCAL_BASE))


def _window_keys(config: Mapping[str, Any], path: object) -> dict[str, Any]:
    """The window, and the pattern where it is not the published models' own."""
    fields = Fields(config, path)
    layers = fields.count("num_hidden_layers")
    listed = _config.sliding_layers(config, path)
    if listed is None:
        listed = _windows.periodic(layers, fields.count("sliding_window_pattern", _PERIOD))
    if not any(listed):
        return {}
    keys: dict[str, Any] = {"attention.sliding_window": fields.count("sliding_window")}
    if listed != _windows.periodic(layers, _PERIOD):
        keys["attention.sliding_window_pattern"] = list(listed)
    return _config.with_prefix(keys, ARCH)


def rename(hf_name: str) -> str | None:
    """The GGUF name of an HF tensor, None for one that is left out."""
    return _rename(hf_name, GEMMA_LAYER | HEAD_NORMS)


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
    full = _rope.scaled(keys, sizes.head_dim, shapes, read, "halves", positions)
    base = keys.number("rope.freq_base_swa", _LOCAL_BASE)
    local = _rope.plain(keys, sizes.head_dim, base, "halves")
    window = keys.count("attention.sliding_window", 0, low=0)
    slides = _windows.sliding(keys, sizes.layers, _PERIOD)
    if not window:
        slides = (False,) * sizes.layers
    traits = _decoder.Traits(
        ropes=tuple(local if slide else full for slide in slides),
        windows=tuple(window if slide else None for slide in slides),
        attention_scale=_gemma.attention_scale(keys, sizes, _LAYERS_OF_27B),
        activation="gelu",
        head_norms=True,
        post_norms=True,
        embedding_scale=_gemma.embedding_scale(sizes.width),
        head_soft_cap=keys.optional_number("final_logit_softcapping"),
    )
    return _decoder.build(keys, sizes, shapes, traits)
