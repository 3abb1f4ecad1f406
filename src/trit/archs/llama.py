"""Llama and its kin: Llama 1 to 3, Mistral, Mixtral, SmolLM.

GGUF keeps Q and K with their rows permuted, so that rope turns neighbours (2i, 2i + 1) instead of
halves; the converters do it, and so does `transform`. Llama 3.1's rope scaling is a tensor of
divisors, `rope_freqs.weight`. Mixtral is Mistral with experts in place of the feed-forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trit.archs import _config, _decoder, _experts, _rope
from trit.archs._fields import Fields
from trit.archs._names import MIXTRAL_LAYER
from trit.archs._names import rename as _rename
from trit.plan import Plan

ARCH = "llama"
HF_CLASSES = ("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM")

_DEFAULTS = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "rms_norm_eps": 1e-6,
    "vocab_size": 32000,
    "tie_word_embeddings": False,
}
_LLAMA = _DEFAULTS | {"intermediate_size": 11008, "max_position_embeddings": 2048}
_MISTRAL = _DEFAULTS | {
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "sliding_window": 4096,
}
_MIXTRAL = _MISTRAL | {
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "sliding_window": None,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
_BY_TYPE: dict[str, Mapping[str, Any]] = {"mistral": _MISTRAL, "mixtral": _MIXTRAL}


def complete(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`config` with the values its class fills in."""
    return _config.merged(config, _BY_TYPE.get(_type(config), _LLAMA))


def _type(config: Mapping[str, Any]) -> str:
    return str(config.get("model_type"))


def metadata_from_hf(config: Mapping[str, Any], path: object = "config.json") -> dict[str, Any]:
    """GGUF keys of a completed config. Raises InvalidFileError, UnsupportedError."""
    _config.check_activation(config, ("silu", "swish"), path)
    parameters, _ = _config.rope_parameters(config, path)
    head = _config.head_length(config, ARCH, path)
    keys = _config.sizes(config, ARCH, path)
    if config.get("head_dim") is not None:
        keys |= head
    keys |= _config.rope(parameters, config, ARCH, path, by_tensor="llama3")
    keys["llama.vocab_size"] = Fields(config, path).count("vocab_size")
    keys["llama.rope.dimension_count"] = head["llama.attention.key_length"]
    if _type(config) == "mixtral":
        keys |= _config.with_prefix(_experts.counts_from_hf(config, path), ARCH)
    if _type(config) in _BY_TYPE and config.get("sliding_window") is not None:
        window = Fields(config, path).count("sliding_window")
        listed = _config.sliding_layers(config, path)
        keys |= _config.trit_windows(window, listed or (True,))
    return keys


def extra_tensors(
    config: Mapping[str, Any], path: object = "config.json"
) -> dict[str, npt.NDArray[np.float32]]:
    """Tensors a GGUF has and the folder has not: the divisors of Llama 3.1's rope."""
    parameters, _ = _config.rope_parameters(config, path)
    head = _config.head_length(config, ARCH, path)
    return _config.llama3_factors(parameters, head["llama.attention.key_length"], path)


def rename(hf_name: str) -> str | None:
    """The GGUF name of an HF tensor, None for one that is left out."""
    return _rename(hf_name, MIXTRAL_LAYER)


def transform(
    gguf_name: str, array: npt.NDArray[Any], metadata: Mapping[str, Any]
) -> npt.NDArray[Any]:
    """Permute the rows (the first axis, any dtype) of Q and K; leave the rest as it is."""
    part = gguf_name.split(".")[-2]
    if part not in ("attn_q", "attn_k"):
        return array
    heads: int = metadata["llama.attention.head_count" + ("" if part == "attn_q" else "_kv")]
    by_half = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return np.ascontiguousarray(by_half.swapaxes(1, 2)).reshape(array.shape)


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

    def experts(sizes: _decoder.Sizes) -> _experts.Experts | None:
        if _experts.absent(keys):
            return None
        return _experts.read(keys, sizes.feed_forward, renormalize=True)

    return _decoder.plain(keys, shapes, read, context, "adjacent", experts=experts)
