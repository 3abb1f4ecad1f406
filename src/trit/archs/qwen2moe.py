"""Qwen1.5-MoE and Qwen2-MoE: Qwen2 with experts and one that is shared, behind a gate.

The chosen probabilities stay as the softmax gave them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trit.archs import _config, _decoder, _experts, _plain, _rope
from trit.archs._fields import Fields
from trit.archs._names import LLAMA_LAYER, QWEN_EXPERTS
from trit.archs._names import rename as _rename
from trit.plan import Plan

ARCH = "qwen2moe"
HF_CLASSES = ("Qwen2MoeForCausalLM",)
extra_tensors = _plain.extra_tensors
transform = _plain.transform

_DEFAULTS = {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "vocab_size": 151936,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
    "tie_word_embeddings": False,
    "decoder_sparse_step": 1,
    "moe_intermediate_size": 1408,
    "shared_expert_intermediate_size": 5632,
    "num_experts_per_tok": 4,
    "num_experts": 60,
    "norm_topk_prob": False,
}


def complete(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`config` with the values its class fills in."""
    return _config.merged(config, _DEFAULTS)


def metadata_from_hf(config: Mapping[str, Any], path: object = "config.json") -> dict[str, Any]:
    """GGUF keys of a completed config. Raises InvalidFileError, UnsupportedError."""
    _config.check_activation(config, ("silu", "swish"), path)
    parameters, _ = _config.rope_parameters(config, path)
    keys = _config.sizes(config, ARCH, path) | _config.rope(parameters, config, ARCH, path)
    if config.get("head_dim") is not None:
        keys |= _config.head_length(config, ARCH, path)
    experts = _experts.metadata_from_hf(config, path, renormalizes=False)
    shared = Fields(config, path).count("shared_expert_intermediate_size")
    experts["expert_shared_feed_forward_length"] = shared
    keys |= _config.with_prefix(experts, ARCH)
    return keys | _windows_from_hf(config, path)


def _windows_from_hf(config: Mapping[str, Any], path: object) -> dict[str, Any]:
    """Off by default; without a list of layers, every other of the first `max_window_layers`."""
    fields = Fields(config, path)
    if not fields.flag("use_sliding_window"):
        return {}
    first, layers = fields.count("max_window_layers", low=0), fields.count("num_hidden_layers")
    slides = tuple(i % 2 == 0 and i < first for i in range(layers))
    return _config.trit_windows(
        fields.count("sliding_window"), _config.sliding_layers(config, path) or slides
    )


def rename(hf_name: str) -> str | None:
    """The GGUF name of an HF tensor, None for one that is left out."""
    return _rename(hf_name, LLAMA_LAYER | QWEN_EXPERTS)


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

    def experts(sizes: _decoder.Sizes) -> _experts.Experts:
        inner = _experts.inner_of_all(keys, sizes.feed_forward)
        name = "expert_shared_feed_forward_length"
        shared = keys.per_layer(name, sizes.layers, sizes.feed_forward)
        return _experts.read(keys, inner, renormalize=False, shared=shared)

    return _decoder.plain(keys, shapes, read, context, "halves", experts=experts)
