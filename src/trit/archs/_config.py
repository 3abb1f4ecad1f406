"""config.json → GGUF keys: the part every family shares, with the converters' names and defaults.

What stock readers have no key for, but changes the answer, is stored under `trit.*`: the sliding
windows of the llama and qwen families and an attention scale that is not the family's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trit.archs._fields import MAX_HEAD_DIM, Fields, float32, is_list
from trit.errors import UnsupportedError

Metadata = dict[str, Any]
Config = Mapping[str, Any]

TRIT_WINDOW = "attention.sliding_window"
TRIT_PATTERN = "attention.sliding_window_pattern"
TRIT_SCALE = "attention.scale"


def merged(config: Config, defaults: Config) -> Config:
    """`config` over the class's `defaults`; of a model with images, its text part."""
    text = config.get("text_config")
    if isinstance(text, Mapping):
        config = {**config, **text}
    return {**defaults, **config}


def sizes(config: Config, arch: str, path: object) -> Metadata:
    """The keys of a decoder's sizes. Raises InvalidFileError for a field that makes no sense."""
    fields = Fields(config, path)
    heads = fields.count("num_attention_heads")
    keys: Metadata = {
        "block_count": fields.count("num_hidden_layers"),
        "context_length": fields.count("max_position_embeddings"),
        "embedding_length": fields.count("hidden_size"),
        "feed_forward_length": fields.count("intermediate_size"),
        "attention.head_count": heads,
        "attention.head_count_kv": fields.count("num_key_value_heads", heads),
        "attention.layer_norm_rms_epsilon": float32(fields.number("rms_norm_eps")),
    }
    return with_prefix(keys, arch)


def head_length(config: Config, arch: str, path: object) -> Metadata:
    """The keys of the head dimension, given or derived."""
    fields = Fields(config, path)
    width, heads = fields.count("hidden_size"), fields.count("num_attention_heads")
    if not fields.has("head_dim") and width % heads:
        raise fields.error("hidden_size", f"expected a multiple of {heads} heads, got {width}.")
    length = fields.count("head_dim", max(1, width // heads), high=MAX_HEAD_DIM)
    return with_prefix({"attention.key_length": length, "attention.value_length": length}, arch)


def rope_parameters(config: Config, path: object) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """(parameters of the full layers, those of the sliding layers if they have their own).

    Both spellings are read: `rope_parameters` of transformers 5 and `rope_theta` beside
    `rope_scaling` of earlier ones. `rope_type` and `rope_theta` are always set in the first.
    """
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(given, Mapping):
        raise Fields(config, path).error("rope_parameters", "expected an object.")
    nested = [given.get(kind) for kind in ("full_attention", "sliding_attention")]
    full, sliding = (dict(part) if isinstance(part, Mapping) else None for part in nested)
    if full is None and sliding is None:
        full = dict(given)
    full = full or {}
    full.setdefault("rope_type", full.get("type", "default"))
    if full.get("rope_theta") is None:
        full["rope_theta"] = config.get("rope_theta") or 10000.0
    for key in ("partial_rotary_factor", "original_max_position_embeddings"):
        if full.get(key) is None and config.get(key) is not None:
            full[key] = config[key]
    return full, sliding


def rope(
    parameters: Mapping[str, Any], config: Config, arch: str, path: object, by_tensor: str = ""
) -> Metadata:
    """The keys of rope's base and of its linear or yarn scaling.

    `by_tensor` names the scaling for which the family makes tensors; other kinds are refused.
    """
    fields = Fields(parameters, path)
    keys: Metadata = {"rope.freq_base": float32(fields.number("rope_theta"))}
    kind = fields.text("rope_type")
    if kind in ("linear", "yarn"):
        keys["rope.scaling.type"] = kind
        keys["rope.scaling.factor"] = float32(fields.number("factor"))
    if kind == "yarn":
        keys |= _yarn(fields, Fields(config, path).count("max_position_embeddings"))
    if kind not in ("default", "linear", "yarn", by_tensor):
        raise UnsupportedError(f"{path}: rope scaling {kind!r} is not supported for {arch}.")
    if fields.number("partial_rotary_factor", 1.0) != 1.0:
        raise UnsupportedError(f"{path}: partial rope is not supported for {arch}.")
    return with_prefix(keys, arch)


def _yarn(fields: Fields, context: int) -> Metadata:
    for name in ("mscale", "mscale_all_dim"):
        if fields.has(name):
            raise UnsupportedError(f"{fields.path}: yarn's {name!r} is not supported.")
    if not fields.flag("truncate", True):
        raise UnsupportedError(f"{fields.path}: yarn without truncation is not supported.")
    keys: Metadata = {
        "rope.scaling.original_context_length": fields.count(
            "original_max_position_embeddings", context
        )
    }
    names = {
        "extrapolation_factor": "yarn_ext_factor",
        "attn_factor": "yarn_attn_factor",
        "attention_factor": "yarn_attn_factor",
        "beta_fast": "yarn_beta_fast",
        "beta_slow": "yarn_beta_slow",
    }
    for name, key in names.items():
        if fields.has(name):
            keys["rope.scaling." + key] = float32(fields.number(name))
    return keys


def llama3_factors(
    parameters: Mapping[str, Any], head_dim: int, path: object
) -> dict[str, npt.NDArray[np.float32]]:
    """{'rope_freqs.weight': divisors (head_dim/2,)} of Llama 3.1's scaling, {} without it.

    Long waves are slowed by the whole factor, short ones not at all, those between by a ramp.
    """
    fields = Fields(parameters, path)
    if fields.text("rope_type") != "llama3":
        return {}
    factor = fields.number("factor", 8.0)
    low, high = fields.number("low_freq_factor", 1.0), fields.number("high_freq_factor", 4.0)
    if high <= low:
        raise fields.error("high_freq_factor", f"expected more than {low}, got {high}.")
    original = fields.count("original_max_position_embeddings", 8192)
    # The converter's roundings to the last bit: float32, where a number over a tensor is a product
    # with its reciprocal (torch). The power is one of float64, as torch's float32 power is exact.
    one, base = np.float32(1.0), fields.number("rope_theta")
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = one / (base ** exponents.astype(np.float64)).astype(np.float32)
    wavelengths = np.float32(2 * math.pi) * (one / frequencies)
    slope = (np.float32(original) * (one / wavelengths) - np.float32(low)) / np.float32(high - low)
    smooth = np.clip(slope, np.float32(0.0), one)
    divisors = one / ((one - smooth) / np.float32(factor) + smooth)
    return {"rope_freqs.weight": divisors.astype(np.float32)}


def sliding_layers(config: Config, path: object) -> tuple[bool, ...] | None:
    """Which layers slide, from `layer_types`; None when the config does not list them."""
    types = config.get("layer_types")
    if types is None:
        return None
    layers = Fields(config, path).count("num_hidden_layers")
    known = ("full_attention", "sliding_attention")
    if not is_list(types) or len(types) != layers or any(kind not in known for kind in types):
        raise Fields(config, path).error(
            "layer_types", f"expected {layers} entries, each one of {', '.join(known)}."
        )
    return tuple(kind == "sliding_attention" for kind in types)


def trit_windows(window: int, layers: tuple[bool, ...]) -> Metadata:
    """Windows of a family for which stock readers have no key; {} when no layer slides."""
    if not any(layers):
        return {}
    keys: Metadata = {TRIT_WINDOW: window}
    if not all(layers):
        keys[TRIT_PATTERN] = list(layers)
    return with_prefix(keys, "trit")


def qwen_windows(config: Config, path: object) -> Metadata:
    """The windows of Qwen2 and Qwen3: off by default, else from layer `max_window_layers` on."""
    fields = Fields(config, path)
    if not fields.flag("use_sliding_window") or config.get("sliding_window") is None:
        return {}
    first, layers = fields.count("max_window_layers", low=0), fields.count("num_hidden_layers")
    listed = sliding_layers(config, path)
    slides = tuple(i >= first for i in range(layers)) if listed is None else listed
    return trit_windows(fields.count("sliding_window"), slides)


def check_activation(config: Config, allowed: tuple[str, ...], path: object) -> None:
    """Refuse an activation that the family's plan does not compute."""
    for key in ("hidden_activation", "hidden_act"):
        value = config.get(key)
        if value is not None and value not in allowed:
            raise UnsupportedError(f"{path}: {key} {value!r} is not supported.")


def with_prefix(keys: Metadata, prefix: str) -> Metadata:
    """Every key with `prefix.` before it."""
    return {f"{prefix}.{key}": value for key, value in keys.items()}
