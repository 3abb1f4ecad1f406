"""What Gemma 2 and 3 share: norms stored plus one, a scaled embedding, the attention scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trit.archs import _config
from trit.archs._config import TRIT_SCALE
from trit.archs._decoder import Sizes
from trit.archs._fields import Fields, float32
from trit.errors import UnsupportedError

ACTIVATIONS = ("gelu_pytorch_tanh", "gelu")


def check(config: Mapping[str, Any], path: object) -> None:
    """Refuse what a Gemma plan does not compute. `hidden_act` is "gelu" in some early configs."""
    if config.get("hidden_activation") is not None:
        config = {**config, "hidden_act": None}
    _config.check_activation(config, ACTIVATIONS, path)
    if config.get("use_bidirectional_attention"):
        raise UnsupportedError(f"{path}: bidirectional attention is not supported.")


def transform(gguf_name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Add one to the norms (float32), which HF stores as a difference from one."""
    if gguf_name.endswith("norm.weight"):
        return np.asarray(array + np.float32(1.0), dtype=np.float32)
    return array


def attention_scale(keys: Fields, sizes: Sizes, layers_of_27b: int) -> float:
    """1/sqrt(head dimension); the 27B model, known by its layers, divides by width/heads.

    A file made from a config that says otherwise carries the scale under trit's own key.
    """
    own = Fields(keys.values, keys.path, "trit.")
    if own.has(TRIT_SCALE):
        return own.number(TRIT_SCALE)
    big = sizes.layers == layers_of_27b
    return 1.0 / math.sqrt(sizes.width // sizes.heads[0] if big else sizes.head_dim)


def scale_key(config: Mapping[str, Any], layers_of_27b: int, path: object) -> dict[str, Any]:
    """trit's key for the attention scale, where `attention_scale` would not find it by itself."""
    fields = Fields(config, path)
    wanted = fields.number("query_pre_attn_scalar")
    heads = fields.count("num_attention_heads")
    usual = fields.count("head_dim")
    if fields.count("num_hidden_layers") == layers_of_27b:
        usual = fields.count("hidden_size") // heads
    if wanted == usual:
        return {}
    return _config.with_prefix({TRIT_SCALE: float32(1.0 / math.sqrt(wanted))}, "trit")


def embedding_scale(width: int) -> float:
    """sqrt(width), rounded to float32 as both the original and llama.cpp do."""
    return float32(math.sqrt(width))
