"""HF folders made by hand, without torch: to break one thing at a time."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

WIDTH, HEADS, KV, INNER, LAYERS, VOCAB = 32, 4, 2, 64, 2, 12

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "vocab_size": VOCAB,
    "tie_word_embeddings": True,
}


def weights() -> dict[str, np.ndarray]:
    """Random tensors of the Llama that CONFIG describes, by HF name."""
    head_dim = WIDTH // HEADS
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, WIDTH)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}."
        shapes |= {
            layer + "input_layernorm.weight": (WIDTH,),
            layer + "post_attention_layernorm.weight": (WIDTH,),
            layer + "self_attn.q_proj.weight": (WIDTH, WIDTH),
            layer + "self_attn.k_proj.weight": (KV * head_dim, WIDTH),
            layer + "self_attn.v_proj.weight": (KV * head_dim, WIDTH),
            layer + "self_attn.o_proj.weight": (WIDTH, WIDTH),
            layer + "mlp.gate_proj.weight": (INNER, WIDTH),
            layer + "mlp.up_proj.weight": (INNER, WIDTH),
            layer + "mlp.down_proj.weight": (WIDTH, INNER),
        }
    shapes["model.norm.weight"] = (WIDTH,)
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }


def write(
    folder: Path,
    config: Mapping[str, Any] = CONFIG,
    tensors: Mapping[str, np.ndarray] | None = None,
) -> Path:
    """Write a folder; None writes the weights of CONFIG."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save(folder / "model.safetensors", weights() if tensors is None else tensors)
    return folder


def save(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file of float32, float16 and int64 arrays."""
    types = {"float32": "F32", "float16": "F16", "int64": "I64"}
    header, at = {}, 0
    for name, array in tensors.items():
        end = at + array.nbytes
        header[name] = {
            "dtype": types[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [at, end],
        }
        at = end
    raw = json.dumps(header).encode()
    data = b"".join(array.tobytes() for array in tensors.values())
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
