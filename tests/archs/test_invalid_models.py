"""Models whose keys or tensors make no sense: each is refused, typed, named, and fast.

Every case starts from a model that is accepted and breaks a single thing, so the refusal is for
that thing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trit import archs, formats
from trit.errors import InvalidFileError, UnsupportedError
from trit.files._tensor import Tensor
from trit.plan import MixtureOfExperts

SECONDS = 0.5
WIDTH, HEADS, KV, HEAD_DIM, INNER, LAYERS, VOCAB, EXPERTS = 64, 4, 2, 16, 96, 2, 40, 5


@dataclass
class Model:
    """A llama model as `archs.plan` sees it, without any file."""

    metadata: dict[str, Any]
    tensors: dict[str, Tensor]
    path: Path = field(default=Path("model.gguf"))


def tensor(name: str, *shape: int, format: str = "f32", fill: float = 1.0) -> Tensor:
    """A tensor that makes its bytes when asked, all of one value."""
    made = formats.get(format)

    def data() -> np.ndarray:
        assert made.encode is not None
        return made.encode(np.full(shape, fill, dtype=np.float32)).reshape(*shape[:-1], -1)

    return Tensor(name, shape, made, data)


def good() -> Model:
    """A model that is accepted."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (VOCAB, WIDTH),
        "output_norm.weight": (WIDTH,),
        "rope_freqs.weight": (HEAD_DIM // 2,),
    }
    for i in range(LAYERS):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (WIDTH,),
            f"blk.{i}.attn_q.weight": (HEADS * HEAD_DIM, WIDTH),
            f"blk.{i}.attn_k.weight": (KV * HEAD_DIM, WIDTH),
            f"blk.{i}.attn_v.weight": (KV * HEAD_DIM, WIDTH),
            f"blk.{i}.attn_output.weight": (WIDTH, HEADS * HEAD_DIM),
            f"blk.{i}.ffn_norm.weight": (WIDTH,),
            f"blk.{i}.ffn_gate.weight": (INNER, WIDTH),
            f"blk.{i}.ffn_up.weight": (INNER, WIDTH),
            f"blk.{i}.ffn_down.weight": (WIDTH, INNER),
        }
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": LAYERS,
        "llama.context_length": 128,
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10000.0,
        "llama.rope.dimension_count": HEAD_DIM,
        "tokenizer.ggml.tokens": [str(i) for i in range(VOCAB)],
    }
    return Model(metadata, {name: tensor(name, *shape) for name, shape in shapes.items()})


def good_mixture() -> Model:
    """A qwen2moe that is accepted: experts, and one that is shared."""
    model = good()
    model.metadata = {
        name.replace("llama.", "qwen2moe."): "qwen2moe" if value == "llama" else value
        for name, value in model.metadata.items()
    }
    model.metadata |= {
        "qwen2moe.expert_count": EXPERTS,
        "qwen2moe.expert_used_count": 2,
        "qwen2moe.expert_feed_forward_length": 32,
        "qwen2moe.expert_shared_feed_forward_length": INNER,
    }
    del model.tensors["rope_freqs.weight"]
    for i in range(LAYERS):
        block = f"blk.{i}.ffn_"
        for part in ("gate", "up", "down"):
            made = model.tensors.pop(f"{block}{part}.weight")
            model.tensors[f"{block}{part}_shexp.weight"] = made
        shapes = {
            "gate_inp.weight": (EXPERTS, WIDTH),
            "gate_inp_shexp.weight": (WIDTH,),
            "gate_exps.weight": (EXPERTS, 32, WIDTH),
            "up_exps.weight": (EXPERTS, 32, WIDTH),
            "down_exps.weight": (EXPERTS, WIDTH, 32),
        }
        model.tensors |= {block + n: tensor(block + n, *shape) for n, shape in shapes.items()}
    return model


def key(name: str, value: object) -> Callable[[Model], None]:
    """Set a key; None removes it."""

    def change(model: Model) -> None:
        if value is None:
            del model.metadata[name]
        else:
            model.metadata[name] = value

    return change


def replace(name: str, *shape: int, format: str = "f32", fill: float = 1.0) -> Callable:
    """Put a tensor of another shape, format or value; no shape removes it."""

    def change(model: Model) -> None:
        if shape:
            model.tensors[name] = tensor(name, *shape, format=format, fill=fill)
        else:
            del model.tensors[name]

    return change


def qwen2_with_experts(model: Model) -> None:
    """A family that has none."""
    for name, value in list(model.metadata.items()):
        model.metadata[name.replace("llama.", "qwen2.")] = value
    del model.tensors["rope_freqs.weight"]
    model.metadata |= {"general.architecture": "qwen2", "qwen2.expert_count": 4}


def case(change: Callable[[Model], None], names: str) -> Any:
    """A change, and what the error must name."""
    return pytest.param(change, names)


EPS, BASE = "llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"
BLOCKS, CONTEXT = "llama.block_count", "llama.context_length"
HEAD_COUNT, KV_COUNT = "llama.attention.head_count", "llama.attention.head_count_kv"
ROPE_DIM, FF = "llama.rope.dimension_count", "llama.feed_forward_length"

INVALID = [
    case(key("general.architecture", None), "general.architecture"),
    case(key("general.architecture", 7), "general.architecture"),
    *(case(key(BLOCKS, value), BLOCKS) for value in (None, 0, -1, 10**6, 2**63, 2.0, True, "2")),
    case(key(BLOCKS, LAYERS + 1), "blk.2.attn_q.weight"),
    case(key(BLOCKS, LAYERS - 1), "blk.1.attn_norm.weight': expected layers up to 0"),
    *(case(key(HEAD_COUNT, value), HEAD_COUNT) for value in (None, 0, -4, "4", [4, 0], [4, 4, 4])),
    *(case(key(KV_COUNT, value), KV_COUNT) for value in (0, 3, 8, [2], [2, 3], [2, "2"])),
    case(key(HEAD_COUNT, 7), "head_count_kv"),
    case(key("llama.embedding_length", 63), "llama.embedding_length"),
    case(key("llama.embedding_length", 128), "token_embd.weight"),
    *(case(key(ROPE_DIM, value), ROPE_DIM) for value in (15, 18, 0, -2, 2**31, 1)),
    *(case(key(CONTEXT, value), CONTEXT) for value in (None, 0, -1, 2**31, 2**63, 128.0)),
    *(case(key(EPS, v), EPS) for v in (None, math.nan, math.inf, 0.0, -1e-5, "1e-5", True)),
    *(case(key(BASE, value), BASE) for value in (math.nan, math.inf, 0.0, -1.0, [1.0])),
    case(key(FF, [INNER]), FF),
    case(key(FF, np.array([INNER] * 3)), FF),
    case(key(FF, 2 * INNER), "ffn_gate.weight"),
    case(key("llama.attention.key_length", 0), "llama.attention.key_length"),
    case(key("llama.attention.key_length", 32), "attn_q.weight"),
    case(key("llama.rope.scaling.factor", -4.0), "llama.rope.scaling.factor"),
    case(key("llama.rope.scaling.factor", math.nan), "llama.rope.scaling.factor"),
    case(key("llama.rope.scaling.type", 3), "llama.rope.scaling.type"),
    case(key("llama.rope.scaling.attn_factor", math.inf), "llama.rope.scaling.attn_factor"),
    case(key("trit.attention.sliding_window", 0), "trit.attention.sliding_window"),
    case(key("llama.expert_used_count", 2), "llama.expert_used_count"),
    case(key("llama.expert_count", 8), "llama.expert_used_count"),
    case(key("tokenizer.ggml.tokens", ["a"] * (VOCAB - 1)), "token_embd.weight"),
    case(key("tokenizer.ggml.tokens", "abc"), "tokenizer.ggml.tokens"),
    case(replace("token_embd.weight"), "token_embd.weight"),
    case(replace("token_embd.weight", VOCAB + 1, WIDTH), "token_embd.weight"),
    case(replace("token_embd.weight", WIDTH, VOCAB), "token_embd.weight"),
    case(replace("output.weight", VOCAB - 1, WIDTH), "output.weight"),
    case(replace("output_norm.weight"), "output_norm.weight"),
    case(replace("output_norm.weight", WIDTH, 1), "output_norm.weight"),
    case(replace("output_norm.weight", WIDTH, format="q8_0"), "output_norm.weight"),
    case(replace("blk.1.attn_norm.weight", WIDTH, format="q4_0"), "blk.1.attn_norm.weight"),
    case(replace("blk.1.ffn_down.weight"), "blk.1.ffn_down.weight"),
    case(replace("blk.1.ffn_gate.weight"), "blk.1.ffn_gate.weight"),
    case(replace("blk.0.attn_k.weight", HEADS * HEAD_DIM, WIDTH), "blk.0.attn_k.weight"),
    case(replace("blk.0.attn_q.bias", 3), "blk.0.attn_q.bias"),
    case(replace("rope_freqs.weight", HEAD_DIM), "rope_freqs.weight"),
    case(replace("rope_freqs.weight", HEAD_DIM // 2, fill=0.0), "rope_freqs.weight"),
    case(replace("rope_freqs.weight", HEAD_DIM // 2, fill=math.nan), "rope_freqs.weight"),
    case(replace("rope_freqs.weight", HEAD_DIM // 2, format="q8_0"), "rope_freqs.weight"),
]

UNSUPPORTED = [
    case(key("general.architecture", "mamba"), "mamba"),
    case(key("general.type", "adapter"), "adapter"),
    case(qwen2_with_experts, "experts"),
    case(key("llama.attention.causal", False), "future"),
    case(key("llama.attention.clamp_kqv", 8.0), "clamp_kqv"),
    case(key("llama.attention.value_length", 32), "values"),
    case(key("llama.rope.scaling.type", "spiral"), "spiral"),
    case(replace("blk.0.attn_q_norm.weight", HEAD_DIM), "blk.0.attn_q_norm.weight"),
]

COUNT, USED = "qwen2moe.expert_count", "qwen2moe.expert_used_count"
SCALE, NORM = "qwen2moe.expert_weights_scale", "qwen2moe.expert_weights_norm"
EXPERT_FF = "qwen2moe.expert_feed_forward_length"
SHARED_FF = "qwen2moe.expert_shared_feed_forward_length"
ROUTER, GATES = "blk.1.ffn_gate_inp.weight", "blk.0.ffn_gate_exps.weight"

INVALID_MIXTURES = [
    *(case(key(COUNT, value), COUNT) for value in (None, 0, -1, 2**31, 2.0, True, "5", [5])),
    *(case(key(USED, value), USED) for value in (None, 0, -1, EXPERTS + 1, 2**31, "2", [2, 2])),
    *(case(key(SCALE, value), SCALE) for value in (math.nan, math.inf, -1.0, 1e39, "1", True)),
    *(case(key(NORM, value), NORM) for value in (1, "true", [True])),
    *(case(key(EXPERT_FF, value), EXPERT_FF) for value in (0, -32, "32", [32], [32, 0])),
    *(case(key(SHARED_FF, value), SHARED_FF) for value in (0, -1, 1.5, [1, 2, 3])),
    case(key("qwen2moe.expert_gating_func", "softmax"), "qwen2moe.expert_gating_func"),
    case(key(COUNT, EXPERTS + 1), "ffn_gate_inp.weight"),
    case(key(EXPERT_FF, 64), "ffn_gate_exps.weight"),
    case(key(EXPERT_FF, None), "ffn_gate_exps.weight"),
    case(key(EXPERT_FF, [32, 64]), "blk.1.ffn_gate_exps.weight"),
    case(key(SHARED_FF, 64), "ffn_gate_shexp.weight"),
    case(replace(ROUTER), ROUTER),
    case(replace(ROUTER, WIDTH, EXPERTS), ROUTER),
    case(replace(GATES), GATES),
    case(replace(GATES, EXPERTS * 32, WIDTH), GATES),
    case(replace(GATES, EXPERTS - 1, 32, WIDTH), GATES),
    case(replace(GATES, 1, EXPERTS, 32, WIDTH), GATES),
    case(replace("blk.0.ffn_down_exps.weight", EXPERTS, 32, WIDTH), "blk.0.ffn_down_exps.weight"),
    case(replace("blk.0.ffn_up_exps.weight", 32, WIDTH, EXPERTS), "blk.0.ffn_up_exps.weight"),
    *(
        case(replace("blk.0.ffn_gate_inp_shexp.weight", *shape), "blk.0.ffn_gate_inp_shexp.weight")
        for shape in ((), (WIDTH + 1,), (2, WIDTH), (1, 1, WIDTH))
    ),
]

UNSUPPORTED_MIXTURES = [
    case(key("qwen2moe.expert_gating_func", 2), "softmax"),
    case(key("qwen2moe.expert_group_count", 4), "groups"),
    case(replace("blk.0.ffn_gate_exps.bias", EXPERTS, 32), "blk.0.ffn_gate_exps.bias"),
    case(replace("blk.1.exp_probs_b.bias", EXPERTS), "exp_probs_b"),
]


def test_the_models_that_the_cases_break_are_accepted() -> None:
    mixture = archs.plan(good_mixture()).layers[0].feed_forward
    assert isinstance(mixture, MixtureOfExperts) and mixture.shared is not None
    assert (mixture.router.rows, mixture.top_k) == (EXPERTS, 2)
    assert (mixture.gate.rows, mixture.down.cols) == (32, 32)
    assert (mixture.renormalize, mixture.scale) == (False, 1.0)
    plan = archs.plan(good())
    assert len(plan.layers) == LAYERS
    assert plan.vocab_size == VOCAB
    assert plan.head.weight == "token_embd.weight"


MODELS: dict[str, Callable[[], Model]] = {"dense": good, "mixture": good_mixture}


def of_both(dense: list[Any], mixtures: list[Any]) -> Any:
    """Each case with the model it breaks."""
    return pytest.mark.parametrize(
        ("start", "change", "names"),
        [pytest.param("dense", *case.values) for case in dense]
        + [pytest.param("mixture", *case.values) for case in mixtures],
    )


@of_both(INVALID, INVALID_MIXTURES)
def test_invalid_model_is_refused(start: str, change: Callable[[Model], None], names: str) -> None:
    model = MODELS[start]()
    change(model)
    begun = time.perf_counter()
    with pytest.raises(InvalidFileError) as caught:
        archs.plan(model)
    assert time.perf_counter() - begun < SECONDS
    assert names in str(caught.value)
    assert str(caught.value).startswith("model.gguf: ")


@of_both(UNSUPPORTED, UNSUPPORTED_MIXTURES)
def test_unsupported_model_is_refused(
    start: str, change: Callable[[Model], None], names: str
) -> None:
    model = MODELS[start]()
    change(model)
    with pytest.raises(UnsupportedError, match=names) as caught:
        archs.plan(model)
    assert "model.gguf" in str(caught.value)


def test_keys_that_change_how_experts_are_mixed() -> None:
    model = good_mixture()
    model.metadata |= {NORM: True, SCALE: 2.5, EXPERT_FF: [32, 32]}
    name = "blk.0.ffn_gate_inp_shexp.weight"
    model.tensors[name] = tensor(name, 1, WIDTH)
    mixture = archs.plan(model).layers[0].feed_forward
    assert isinstance(mixture, MixtureOfExperts)
    assert (mixture.renormalize, mixture.scale) == (True, 2.5)
    model.metadata[SCALE] = 0.0  # stock writers' word for none
    mixture = archs.plan(model).layers[0].feed_forward
    assert isinstance(mixture, MixtureOfExperts)
    assert mixture.scale == 1.0


def test_planes_of_trit_beside_the_plan_are_allowed() -> None:
    model = good()
    model.tensors["trit.blk.0.attn_q.refinement"] = tensor("trit.x", 4, 32)
    assert archs.plan(model).layers


def test_per_layer_sizes_are_read_from_arrays() -> None:
    model = good()
    model.metadata[KV_COUNT] = np.array([KV, HEADS], dtype=np.int32)
    for name in ("blk.1.attn_k.weight", "blk.1.attn_v.weight"):
        model.tensors[name] = tensor(name, HEADS * HEAD_DIM, WIDTH)
    assert [layer.mixer.kv_heads for layer in archs.plan(model).layers] == [KV, HEADS]
