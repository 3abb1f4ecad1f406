"""Tiny models of every architecture, random and seeded, saved as HF folders.

`tiny_model(arch, folder, Variant(...))` writes what `save_pretrained` writes; the same folders
serve the tests of archs, of the reference and of the C++ engine. Columns are multiples of 32, so
that every 32-block format fits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIXTURES = ("mixtral", "qwen2moe", "qwen3moe")
ARCHS = (
    *("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gemma3_vision", "phi3", "bitnet"),
    *MIXTURES,
)

Rope = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """How a tiny model differs from the plain one of its architecture; None keeps the default."""

    layers: int = 3
    tied: bool | None = None
    biases: bool = False
    rope: Rope | None = None
    window: int | None = None
    layer_types: tuple[str, ...] | None = None
    head_dim: int | None = None
    heads: int = 4
    kv_heads: int = 2
    context: int = 256
    attention_scalar: int | None = None
    soft_caps: tuple[float | None, float | None] | None = None
    activation: str | None = None
    dtype: str = "float32"
    vocab: int = 320
    seed: int = 0
    tokenizer: bool = False
    experts: int = 8
    experts_used: int = 3
    renormalize: bool | None = None  # None: as the family's published models do
    fused: bool = False  # experts saved as transformers holds them, not as it publishes them


PLAIN = Variant()

# Rope scalings of the sizes that show: the original context is shorter than the prompts.
LINEAR: Rope = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
LLAMA3: Rope = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN: Rope = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}


def longrope(pairs: int, original: int) -> Rope:
    """LongRoPE parameters for `pairs` pairs, trained on `original` positions."""
    return {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0 + 0.01 * i for i in range(pairs)],
        "long_factor": [1.0 + 0.5 * i for i in range(pairs)],
        "original_max_position_embeddings": original,
    }


def tiny_model(arch: str, folder: Path, variant: Variant = PLAIN) -> Path:
    """Save a tiny random model of `arch` (one of ARCHS) in `folder` and return the folder.

    The norms and biases are random too: at their initial ones and zeros, a forgotten one would
    not be seen.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    torch.manual_seed(variant.seed)
    config = tiny_config(arch, variant)
    maker = AutoModelForImageTextToText if arch == "gemma3_vision" else AutoModelForCausalLM
    model = maker.from_config(config, dtype=getattr(torch, variant.dtype))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "vision" in name:
                continue
            spread = 0.3 if weight.ndim == 1 else 1.5 / weight.shape[-1] ** 0.5
            noise = torch.randn_like(weight) * spread
            ones = weight.ndim == 1 and name.endswith("norm.weight") and "gemma" not in arch
            weight.copy_(noise + 1.0 if ones else noise)
    model.save_pretrained(folder, save_original_format=not variant.fused)
    if variant.tokenizer:
        byte_tokenizer(folder, variant.vocab)
    return folder


def tiny_config(arch: str, variant: Variant = PLAIN) -> Any:
    """The transformers configuration of a tiny model."""
    import transformers

    classes = {
        "llama": transformers.LlamaConfig,
        "mistral": transformers.MistralConfig,
        "qwen2": transformers.Qwen2Config,
        "qwen3": transformers.Qwen3Config,
        "gemma2": transformers.Gemma2Config,
        "gemma3": transformers.Gemma3TextConfig,
        "gemma3_vision": transformers.Gemma3TextConfig,
        "phi3": transformers.Phi3Config,
        "bitnet": transformers.BitNetConfig,
        "mixtral": transformers.MixtralConfig,
        "qwen2moe": transformers.Qwen2MoeConfig,
        "qwen3moe": transformers.Qwen3MoeConfig,
    }
    config = classes[arch](**_settings(arch, variant))
    if arch != "gemma3_vision":
        return config
    vision = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    return transformers.Gemma3Config(
        text_config=config.to_dict(), vision_config=vision, mm_tokens_per_image=4
    )


def _settings(arch: str, variant: Variant) -> dict[str, Any]:
    gemma = arch.startswith("gemma")
    settings: dict[str, Any] = {
        "vocab_size": variant.vocab,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": variant.layers,
        "num_attention_heads": variant.heads,
        "num_key_value_heads": variant.kv_heads,
        "max_position_embeddings": variant.context,
        "rms_norm_eps": 1e-5,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": gemma if variant.tied is None else variant.tied,
    }
    if arch in ("qwen3", "qwen3moe", "gemma2", "gemma3", "gemma3_vision"):
        settings["head_dim"] = variant.head_dim or 32
    elif variant.head_dim is not None:
        settings["head_dim"] = variant.head_dim
    if variant.activation is not None:
        settings["hidden_act"] = variant.activation
    if variant.biases:
        settings |= {"attention_bias": True} | ({"mlp_bias": True} if arch == "llama" else {})
    if variant.rope is not None:
        settings["rope_parameters"] = variant.rope
        if "short_factor" in variant.rope:
            settings["original_max_position_embeddings"] = variant.rope[
                "original_max_position_embeddings"
            ]
    if variant.layer_types is not None:
        settings["layer_types"] = list(variant.layer_types)
    settings |= _window_settings(arch, variant.window) | _expert_settings(arch, variant)
    if gemma:
        settings["query_pre_attn_scalar"] = variant.attention_scalar or settings["head_dim"]
    if variant.soft_caps is not None:
        attention, final = variant.soft_caps
        settings |= {"attn_logit_softcapping": attention, "final_logit_softcapping": final}
    return settings


def _window_settings(arch: str, window: int | None) -> dict[str, Any]:
    if arch.startswith("gemma"):
        return {"sliding_window": window or 16}
    if arch.startswith("qwen") and window is not None:
        return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 1}
    if arch in ("mistral", "mixtral", "phi3"):
        return {"sliding_window": window}
    return {}


def _expert_settings(arch: str, variant: Variant) -> dict[str, Any]:
    if arch not in MIXTURES:
        return {}
    settings: dict[str, Any] = {"num_experts_per_tok": variant.experts_used}
    if arch == "mixtral":
        return settings | {"num_local_experts": variant.experts}
    renormalize = arch == "qwen3moe" if variant.renormalize is None else variant.renormalize
    settings |= {"num_experts": variant.experts, "norm_topk_prob": renormalize}
    settings |= {"moe_intermediate_size": 32}
    return settings | ({"shared_expert_intermediate_size": 64} if arch == "qwen2moe" else {})


def byte_tokenizer(folder: Path, vocab: int) -> None:
    """Save a byte-level BPE tokenizer (GPT-2's shape) of at most `vocab` tokens in `folder`.

    256 bytes, three special tokens in front, and a few merges; no training, so it never changes.
    """
    letters = _byte_letters()
    tokens = ["<pad>", "<s>", "</s>", *letters]
    merges = [("t", "h"), ("th", "e"), ("a", "n"), ("an", "d"), ("Ġ", "the"), ("i", "n")]
    tokens += [left + right for left, right in merges]
    assert len(tokens) <= vocab, "the vocabulary is too small for the bytes"
    special = [
        {
            "id": id,
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for id, text in enumerate(tokens[:3])
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": byte_level | {"use_regex": True},
        "post_processor": byte_level | {"use_regex": True},
        "decoder": byte_level | {"use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {text: id for id, text in enumerate(tokens)},
            "merges": [list(pair) for pair in merges],
        },
    }
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "</s>",
        "pad_token": "<pad>",
        "add_bos_token": False,
        "chat_template": "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _byte_letters() -> list[str]:
    """One printable character per byte, as GPT-2 maps them: itself, or one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
