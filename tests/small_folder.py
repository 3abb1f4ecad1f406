"""A small llama as a Hugging Face folder, random and without torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trit import formats

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "vocab_size": 12,
    "tie_word_embeddings": True,
}


def weights() -> dict[str, np.ndarray]:
    """Random tensors by their names in a folder, float32."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (12, 32)}
    for i in range(2):
        layer = f"model.layers.{i}."
        shapes |= {
            layer + "input_layernorm.weight": (32,),
            layer + "post_attention_layernorm.weight": (32,),
            layer + "self_attn.q_proj.weight": (32, 32),
            layer + "self_attn.k_proj.weight": (16, 32),
            layer + "self_attn.v_proj.weight": (16, 32),
            layer + "self_attn.o_proj.weight": (32, 32),
            layer + "mlp.gate_proj.weight": (64, 32),
            layer + "mlp.up_proj.weight": (64, 32),
            layer + "mlp.down_proj.weight": (32, 64),
        }
    shapes["model.norm.weight"] = (32,)
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }


def write(folder: Path, kind: str = "f32", arrays: Mapping[str, np.ndarray] | None = None) -> Path:
    """Write the folder with matrices and vectors of a float format; None: of `weights()`."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    header: dict[str, Any] = {}
    data = b""
    encode = formats.get(kind).encode
    assert encode is not None
    for name, array in (weights() if arrays is None else arrays).items():
        raw = encode(array).tobytes()
        header[name] = {
            "dtype": kind.upper(),
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return folder
