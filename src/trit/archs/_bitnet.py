"""What both kinds of BitNet b1.58 share: Llama's shape with norms before `output` and `down`.

The linears are ternary, which is the affair of the files; here they are matrices like others. Rope
turns halves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trit.archs import _config, _decoder, _rope
from trit.archs._fields import Fields
from trit.archs._names import LLAMA_LAYER
from trit.plan import Activation, Plan

_Shape = tuple[int, ...]

_DEFAULTS = {
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "num_hidden_layers": 30,
    "num_attention_heads": 20,
    "num_key_value_heads": 5,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "vocab_size": 128256,
    "hidden_act": "relu2",
    "tie_word_embeddings": False,
}

# transformers' names of the inner norms, and those of the first published models.
LAYER = LLAMA_LAYER | {
    "self_attn.attn_sub_norm": "attn_sub_norm",
    "self_attn.inner_attn_ln": "attn_sub_norm",
    "mlp.ffn_sub_norm": "ffn_sub_norm",
    "mlp.ffn_layernorm": "ffn_sub_norm",
}


def complete(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """`config` with the values its class fills in."""
    return _config.merged(config, _DEFAULTS)


def is_silu(config: Mapping[str, Any]) -> bool:
    """Whether a model's gate is SiLU, as in the first published ones."""
    return config.get("hidden_act") in ("silu", "swish")


def hf_shapes(config: Mapping[str, Any], path: object = "config.json") -> dict[str, _Shape]:
    """HF names and shapes (rows, cols) of all tensors of a completed config, in running order."""
    fields = Fields(config, path)
    width, ffn = fields.count("hidden_size"), fields.count("intermediate_size")
    heads, kv_heads = fields.count("num_attention_heads"), fields.count("num_key_value_heads")
    head_dim = fields.count("head_dim", max(1, width // heads))
    queries, keys = heads * head_dim, kv_heads * head_dim
    layer: dict[str, _Shape] = {
        "input_layernorm": (width,),
        "self_attn.q_proj": (queries, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.attn_sub_norm": (queries,),
        "self_attn.o_proj": (width, queries),
        "post_attention_layernorm": (width,),
        "mlp.gate_proj": (ffn, width),
        "mlp.up_proj": (ffn, width),
        "mlp.ffn_sub_norm": (ffn,),
        "mlp.down_proj": (width, ffn),
    }
    vocab = fields.count("vocab_size")
    found: dict[str, _Shape] = {"model.embed_tokens.weight": (vocab, width)}
    for i in range(fields.count("num_hidden_layers")):
        found |= {f"model.layers.{i}.{name}.weight": shape for name, shape in layer.items()}
    found["model.norm.weight"] = (width,)
    return (
        found
        if fields.flag("tie_word_embeddings", False)
        else found | {"lm_head.weight": (vocab, width)}
    )


def metadata_from_hf(config: Mapping[str, Any], arch: str, path: object) -> dict[str, Any]:
    """GGUF keys of a completed config. Raises InvalidFileError, UnsupportedError."""
    parameters, _ = _config.rope_parameters(config, path)
    keys = _config.sizes(config, arch, path) | _config.rope(parameters, config, arch, path)
    head = _config.head_length(config, arch, path)
    keys[f"{arch}.rope.dimension_count"] = head[f"{arch}.attention.key_length"]
    keys[f"{arch}.vocab_size"] = Fields(config, path).count("vocab_size")
    return keys | (head if config.get("head_dim") is not None else {})


def plan(
    keys: Fields,
    shapes: _decoder.Shapes,
    read: _rope.Read,
    context: int | None,
    activation: Activation,
) -> Plan:
    """The plan, from GGUF keys and tensor shapes; `read` gives a small tensor as float32."""
    return _decoder.plain(
        keys, shapes, read, context, "halves", activation=activation, sub_norms=True
    )
