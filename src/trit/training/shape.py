"""The shape of a model as config.json says it, and the plan that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trit.archs import bitnet_b158
from trit.plan import Plan
from trit.training.config import Model


def hf_config(model: Model, vocab: int, ids: Mapping[str, Any], name: str) -> dict[str, Any]:
    """config.json of a model of this shape."""
    return {
        "architectures": ["BitNetForCausalLM"],
        "model_type": "bitnet",
        "_name_or_path": name,
        "hidden_size": model.width,
        "intermediate_size": model.ffn,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads or model.heads,
        "max_position_embeddings": model.context,
        "rms_norm_eps": model.norm_eps,
        "rope_theta": model.rope_base,
        "vocab_size": vocab,
        "hidden_act": "relu2",
        "tie_word_embeddings": model.tied,
        "torch_dtype": "float32",
        **ids,
    }


def planned(hf: Mapping[str, Any], context: int) -> tuple[Plan, dict[str, tuple[int, ...]]]:
    """The plan of a config.json, and the shapes of its tensors by GGUF name."""
    keys = bitnet_b158.metadata_from_hf(bitnet_b158.complete(hf))
    names = bitnet_b158.hf_shapes(hf)
    shapes = {str(bitnet_b158.rename(name)): shape for name, shape in names.items()}

    def read(name: str) -> Any:
        raise AssertionError(f"no plan of BitNet reads {name}")

    return bitnet_b158.plan(keys, shapes, read, context=context), shapes
