"""A small llama-shaped GGUF of random weights, for tests of what works on files as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit import formats
from trit.files import gguf
from trit.files.gguf import Plain, Tensor, Value, ValueType

Floats = NDArray[np.float32]

LAYERS, EMBED, FEED_FORWARD, VOCAB = 2, 256, 512, 64


def arrays(odd: int = 0, seed: int = 0) -> dict[str, Floats]:
    """Weights by name; `odd` more columns, so that K-quants do not fit them."""
    random = np.random.default_rng(seed)
    embed = EMBED + odd
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCAB, embed)}
    for i in range(LAYERS):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (embed,),
            f"blk.{i}.attn_q.weight": (embed, embed),
            f"blk.{i}.attn_k.weight": (embed // 2, embed),
            f"blk.{i}.attn_v.weight": (embed // 2, embed),
            f"blk.{i}.attn_output.weight": (embed, embed),
            f"blk.{i}.ffn_norm.weight": (embed,),
            f"blk.{i}.ffn_gate.weight": (FEED_FORWARD, embed),
            f"blk.{i}.ffn_up.weight": (FEED_FORWARD, embed),
            f"blk.{i}.ffn_down.weight": (embed, FEED_FORWARD),
        }
    shapes["output_norm.weight"] = (embed,)
    return {
        name: (random.standard_normal(shape) / 16).astype(np.float32)
        for name, shape in shapes.items()
    }


EXPERTS, USED = 4, 2


def mixture(seed: int = 0) -> dict[str, Floats]:
    """The same with experts, half as wide, in place of each feed-forward."""
    random, inner = np.random.default_rng(seed), FEED_FORWARD // 2
    made = {name: a for name, a in arrays(seed=seed).items() if ".ffn_" not in name}
    for i in range(LAYERS):
        block = f"blk.{i}.ffn_"
        shapes = {
            "norm.weight": (EMBED,),
            "gate_inp.weight": (EXPERTS, EMBED),
            "gate_exps.weight": (EXPERTS, inner, EMBED),
            "up_exps.weight": (EXPERTS, inner, EMBED),
            "down_exps.weight": (EXPERTS, EMBED, inner),
        }
        for name, shape in shapes.items():
            made[block + name] = (random.standard_normal(shape) / 16).astype(np.float32)
    return made


MIXTURE_KEYS: dict[str, Plain | Value] = {
    "llama.expert_count": EXPERTS,
    "llama.expert_used_count": USED,
    "llama.feed_forward_length": FEED_FORWARD // 2,
}


def keys(embed: int = EMBED) -> dict[str, Plain | Value]:
    """Keys of several GGUF types, some of them unknown to trit."""
    return {
        "general.architecture": "llama",
        "general.name": "Small Model",
        "general.license": "mit",
        "llama.block_count": LAYERS,
        "llama.context_length": 128,
        "llama.embedding_length": embed,
        "llama.feed_forward_length": FEED_FORWARD,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [f"<{i}>" for i in range(VOCAB)],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.chat_template": "{{ messages }}",
        "someone.else.u8": Value(ValueType.UINT8, 7),
        "someone.else.f64": Value(ValueType.FLOAT64, 0.1),
        "someone.else.i16s": Value(ValueType.INT16, [1, -2, 3]),
        "general.file_type": 1,
    }


def write(
    path: Path,
    weights: Mapping[str, Floats],
    matrices: str = "f16",
    extra: Mapping[str, Plain | Value] | None = None,
) -> Path:
    """Write weights as a GGUF; matrices in that plain format, vectors in F32."""
    tensors = []
    for name, array in weights.items():
        format = formats.get("f32" if array.ndim < 2 else matrices)
        assert format.encode is not None
        data = format.encode(array).reshape(*array.shape[:-1], -1)
        tensors.append(Tensor(name, array.shape, format, data))
    embed = weights["token_embd.weight"].shape[1]
    gguf.write(path, {**keys(embed), **(extra or {})}, tensors)
    return path
