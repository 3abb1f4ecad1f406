"""HF folders as virtual GGUFs: what is renamed, transformed, left out, and refused."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
from folders import CONFIG, HEADS, INNER, VOCAB, WIDTH

from trit import archs
from trit.errors import InvalidFileError, UnsupportedError
from trit.files import checkpoint
from trit.plan import MixtureOfExperts


def test_names_and_formats(tmp_path: Path) -> None:
    with checkpoint.open(folders.write(tmp_path)) as model:
        assert model.kind == "hf"
        assert model.metadata["general.architecture"] == "llama"
        assert len(model.tensors) == len(folders.weights())
        assert all(tensor.format.name == "f32" for tensor in model.tensors.values())
        assert archs.parameter_count(model) == sum(a.size for a in folders.weights().values())
        assert archs.plan(model).head.weight == "token_embd.weight"


def test_halves_become_pairs_in_q_and_k_only(tmp_path: Path) -> None:
    source = folders.weights()
    with checkpoint.open(folders.write(tmp_path)) as model:
        for part in ("q", "k"):
            before = source[f"model.layers.1.self_attn.{part}_proj.weight"]
            after = model.tensors[f"blk.1.attn_{part}.weight"].decode()
            half = WIDTH // HEADS // 2
            for row in range(len(before)):
                head, at = divmod(row, 2 * half)
                pair = 2 * (at % half) + at // half
                assert np.array_equal(after[head * 2 * half + pair], before[row])
        v = model.tensors["blk.1.attn_v.weight"].decode()
        assert np.array_equal(v, source["model.layers.1.self_attn.v_proj.weight"])


def test_vectors_become_f32_and_matrices_keep_their_type(tmp_path: Path) -> None:
    halves = {name: array.astype(np.float16) for name, array in folders.weights().items()}
    with checkpoint.open(folders.write(tmp_path, tensors=halves)) as model:
        assert model.tensors["output_norm.weight"].format.name == "f32"
        assert model.tensors["blk.0.attn_q.weight"].format.name == "f16"
        assert model.metadata["general.file_type"] == 1
        norm = model.tensors["output_norm.weight"].decode()
        assert np.array_equal(norm, halves["model.norm.weight"].astype(np.float32))


def test_a_tied_head_that_was_saved_is_left_out(tmp_path: Path) -> None:
    tensors = folders.weights()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    with checkpoint.open(folders.write(tmp_path, tensors=tensors)) as model:
        assert "output.weight" not in model.tensors


def test_an_untied_head_is_kept_and_must_be_there(tmp_path: Path) -> None:
    config = CONFIG | {"tie_word_embeddings": False}
    with pytest.raises(InvalidFileError, match=r"lm_head\.weight"):
        checkpoint.open(folders.write(tmp_path, config))
    tensors = folders.weights() | {"lm_head.weight": np.ones((VOCAB, WIDTH), dtype=np.float32)}
    with checkpoint.open(folders.write(tmp_path, config, tensors)) as model:
        assert archs.plan(model).head.weight == "output.weight"


def test_rotary_tables_are_left_out(tmp_path: Path) -> None:
    table = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, dtype=np.float32)}
    with checkpoint.open(folders.write(tmp_path, tensors=folders.weights() | table)) as model:
        assert len(model.tensors) == len(folders.weights())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"rope_theta": 500.0}, {"rope_parameters": {"rope_theta": 500.0}}),
        (
            {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_parameters": {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0}},
        ),
    ],
)
def test_both_spellings_of_rope(old: dict[str, Any], new: dict[str, Any], tmp_path: Path) -> None:
    plain = {key: value for key, value in CONFIG.items() if key != "rope_theta"}
    plans = []
    for i, given in enumerate((old, new)):
        with checkpoint.open(folders.write(tmp_path / str(i), plain | given)) as model:
            plans.append(archs.plan(model))
    assert plans[0] == plans[1]
    with checkpoint.open(folders.write(tmp_path / "plain")) as model:
        assert archs.plan(model) != plans[0]


def test_missing_values_are_those_of_the_class(tmp_path: Path) -> None:
    sparse = {key: value for key, value in CONFIG.items() if key != "rms_norm_eps"}
    with checkpoint.open(folders.write(tmp_path, sparse)) as model:
        assert archs.plan(model).output_norm.eps == pytest.approx(1e-6)


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"architectures": []}, "architectures"),
    ({"architectures": "LlamaForCausalLM"}, "architectures"),
    ({"num_hidden_layers": 0}, "num_hidden_layers"),
    ({"num_hidden_layers": 10**6}, "block_count"),
    ({"num_hidden_layers": 2.5}, "num_hidden_layers"),
    ({"num_attention_heads": 0}, "num_attention_heads"),
    ({"num_attention_heads": 5}, "hidden_size"),
    ({"num_key_value_heads": 3}, "head_count_kv"),
    ({"head_dim": 16}, "attn_q"),
    ({"hidden_size": "32"}, "hidden_size"),
    ({"rms_norm_eps": -1e-5}, "rms_norm_eps"),
    ({"rope_theta": -1}, "rope_theta"),
    ({"max_position_embeddings": 2**31}, "max_position_embeddings"),
    ({"rope_scaling": [1, 2]}, "rope_parameters"),
    ({"rope_scaling": {"type": "linear"}}, "factor"),
    ({"rope_scaling": {"type": "llama3", "low_freq_factor": 4.0}}, "high_freq_factor"),
]

UNSUPPORTED: list[tuple[dict[str, Any], str]] = [
    ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM"),
    ({"hidden_act": "relu"}, "relu"),
    ({"quantization_config": {"quant_method": "aqlm"}}, "quantized"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
    ({"rope_scaling": {"type": "yarn", "factor": 2.0, "mscale": 1.0}}, "mscale"),
    ({"partial_rotary_factor": 0.5}, "partial"),
]


@pytest.mark.parametrize(("change", "names"), INVALID)
def test_invalid_config_is_refused(change: dict[str, Any], names: str, tmp_path: Path) -> None:
    folder = folders.write(tmp_path, CONFIG | change)
    with pytest.raises(InvalidFileError, match=names), checkpoint.open(folder) as model:
        archs.plan(model)


@pytest.mark.parametrize(("change", "names"), UNSUPPORTED)
def test_unsupported_config_is_refused(change: dict[str, Any], names: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=names):
        checkpoint.open(folders.write(tmp_path, CONFIG | change))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"a": NaN}', "[" * 100_000, '{"a":' * 100_000, "\x00", '{"a": 1} x'],
)
def test_broken_json_is_refused(text: str, tmp_path: Path) -> None:
    folder = folders.write(tmp_path)
    (folder / "config.json").write_text(text)
    with pytest.raises(InvalidFileError, match=r"config\.json"):
        checkpoint.open(folder)


def test_json_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    folder = folders.write(tmp_path)
    (folder / "config.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InvalidFileError, match=r"offset 7.*UTF-8"):
        checkpoint.open(folder)


def test_unknown_tensors_are_refused(tmp_path: Path) -> None:
    extra = {"model.layers.0.self_attn.q_norm.weight": np.ones(8, dtype=np.float32)}
    with pytest.raises(UnsupportedError, match="q_norm"):
        checkpoint.open(folders.write(tmp_path, tensors=folders.weights() | extra))


def test_integer_weights_are_refused(tmp_path: Path) -> None:
    tensors = folders.weights()
    tensors["model.norm.weight"] = np.ones(WIDTH, dtype=np.int64)
    with pytest.raises(UnsupportedError, match=r"model\.norm\.weight"):
        checkpoint.open(folders.write(tmp_path, tensors=tensors))


def test_two_names_for_one_tensor_are_refused(tmp_path: Path) -> None:
    tensors = folders.weights()
    tensors["language_model.model.norm.weight"] = tensors["model.norm.weight"]
    with pytest.raises(InvalidFileError, match="second"):
        checkpoint.open(folders.write(tmp_path, tensors=tensors))


def test_a_missing_embedding_is_named(tmp_path: Path) -> None:
    tensors = folders.weights()
    del tensors["model.embed_tokens.weight"]
    with pytest.raises(InvalidFileError, match="embed_tokens"):
        checkpoint.open(folders.write(tmp_path, tensors=tensors))


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match=r"config\.json with safetensors"):
        checkpoint.open(tmp_path)
    with pytest.raises(InvalidFileError, match="missing"):
        checkpoint.open(tmp_path / "missing.gguf")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(InvalidFileError, match="safetensors"):
        checkpoint.open(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UnsupportedError, match="pickle"):
        checkpoint.open(tmp_path)


def test_a_folder_with_one_gguf_is_that_gguf(tmp_path: Path) -> None:
    from trit.files import gguf

    with checkpoint.open(folders.write(tmp_path / "hf")) as source:
        out = tmp_path / "out"
        out.mkdir()
        gguf.write(out / "a.gguf", dict(source.values), list(source.tensors.values()))
        with checkpoint.open(out) as model:
            assert model.kind == "gguf"
            assert archs.plan(model) == archs.plan(source)
        (out / "b.gguf").write_bytes(b"x")
        with pytest.raises(InvalidFileError, match="2 GGUF files"):
            checkpoint.open(out)


# Experts.

EXPERTS = 3
MIXTRAL = CONFIG | {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": EXPERTS,
    "num_experts_per_tok": 2,
}
QWEN3 = CONFIG | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_experts": EXPERTS,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": INNER,
    "norm_topk_prob": True,
}
BLOCK = "model.layers.1.block_sparse_moe."


def mixtral() -> dict[str, np.ndarray]:
    """The weights of MIXTRAL as it was published."""
    tensors = {name: array for name, array in folders.weights().items() if ".mlp." not in name}
    random = np.random.default_rng(1)
    for i in range(folders.LAYERS):
        block = f"model.layers.{i}.block_sparse_moe."
        shapes: dict[str, tuple[int, ...]] = {"gate": (EXPERTS, WIDTH)}
        for e in range(EXPERTS):
            shapes |= {f"experts.{e}.w{n}": (INNER, WIDTH) for n in (1, 3)}
            shapes[f"experts.{e}.w2"] = (WIDTH, INNER)
        for name, shape in shapes.items():
            drawn = random.standard_normal(shape).astype(np.float32)
            tensors[f"{block}{name}.weight"] = drawn
    return tensors


def fused() -> dict[str, np.ndarray]:
    """The same as transformers holds them: all experts in one tensor, gate and up in one."""
    tensors = mixtral()
    for i in range(folders.LAYERS):
        block = f"model.layers.{i}.block_sparse_moe."
        w1, w2, w3 = (
            np.stack([tensors.pop(f"{block}experts.{e}.w{n}.weight") for e in range(EXPERTS)])
            for n in (1, 2, 3)
        )
        tensors[f"model.layers.{i}.mlp.gate.weight"] = tensors.pop(block + "gate.weight")
        tensors[f"model.layers.{i}.mlp.experts.gate_up_proj"] = np.concatenate([w1, w3], axis=1)
        tensors[f"model.layers.{i}.mlp.experts.down_proj"] = w2
    return tensors


def test_experts_are_stacked(tmp_path: Path) -> None:
    source = mixtral()
    with checkpoint.open(folders.write(tmp_path / "a", MIXTRAL, source)) as model:
        for name, n in (("gate", 1), ("up", 3), ("down", 2)):
            stack = model.tensors[f"blk.1.ffn_{name}_exps.weight"]
            assert stack.shape[0] == EXPERTS
            for e, matrix in enumerate(stack.decode()):
                assert np.array_equal(matrix, source[f"{BLOCK}experts.{e}.w{n}.weight"])
        assert model.metadata["general.size_label"].startswith(f"{EXPERTS}x")
        with checkpoint.open(folders.write(tmp_path / "b", MIXTRAL, fused())) as other:
            assert archs.plan(model) == archs.plan(other)
            assert set(model.tensors) == set(other.tensors)
            for name, tensor in model.tensors.items():
                assert np.array_equal(tensor.data, other.tensors[name].data), name


def test_routers_become_f32(tmp_path: Path) -> None:
    halves = {name: array.astype(np.float16) for name, array in mixtral().items()}
    with checkpoint.open(folders.write(tmp_path, MIXTRAL, halves)) as model:
        router = model.tensors["blk.1.ffn_gate_inp.weight"]
        assert router.format.name == "f32"
        expected = halves[BLOCK + "gate.weight"].astype(np.float32)
        assert np.array_equal(router.decode(), expected)
        assert model.tensors["blk.1.ffn_up_exps.weight"].format.name == "f16"


def test_stacks_are_made_one_at_a_time(tmp_path: Path) -> None:
    """Opening a folder reads no expert; a stack costs its own bytes, and only while it is held."""
    size = EXPERTS * INNER * WIDTH * 4
    with checkpoint.open(folders.write(tmp_path, MIXTRAL, mixtral())) as model:
        tracemalloc.start()
        for tensor in model.tensors.values():
            if "_exps" in tensor.name:
                assert tensor.data.nbytes == size
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert size <= peak <= 2 * size


def drop(tensors: dict[str, np.ndarray]) -> None:
    del tensors[BLOCK + "experts.1.w3.weight"]


def drop_last(tensors: dict[str, np.ndarray]) -> None:
    for n in (1, 2, 3):
        del tensors[f"{BLOCK}experts.{EXPERTS - 1}.w{n}.weight"]


def put(name: str, *shape: int, dtype: type = np.float32) -> Any:
    def change(tensors: dict[str, np.ndarray]) -> None:
        tensors[name] = np.ones(shape, dtype)

    return change


BROKEN_EXPERTS = [
    (drop, "ffn_up_exps.*expert 1 of 3 is missing"),
    (drop_last, "ffn_gate_exps|ffn_up_exps|ffn_down_exps"),
    (put(BLOCK + "experts.999999.w1.weight", INNER, WIDTH), "expert 3 of 1000000 is missing"),
    (put(BLOCK + "experts.3.w1.weight", INNER, WIDTH), "ffn_gate_exps"),
    (put(BLOCK + "experts.1.w1.weight", WIDTH, INNER), "experts.1.w1.weight.*expected f32"),
    (put(BLOCK + "experts.1.w1.weight", INNER, WIDTH, dtype=np.float16), "got f16"),
    (put(BLOCK + "experts.0.w1.weight", INNER), "expected a matrix"),
    (put(BLOCK + "gate.weight", EXPERTS + 1, WIDTH), "ffn_gate_inp"),
    (put(BLOCK + "experts.gate_up_proj", EXPERTS, 2 * INNER, WIDTH), "a second one"),
    (put(BLOCK + "experts.down_proj", EXPERTS * WIDTH, INNER), "rows of 1 stacks"),
    (put(BLOCK + "experts.gate_up_proj", EXPERTS, 2 * INNER + 1, WIDTH), "rows of 2 stacks"),
]


@pytest.mark.parametrize(("change", "names"), BROKEN_EXPERTS)
def test_broken_experts_are_refused(change: Any, names: str, tmp_path: Path) -> None:
    tensors = mixtral()
    change(tensors)
    folder = folders.write(tmp_path, MIXTRAL, tensors)
    with pytest.raises(InvalidFileError, match=names), checkpoint.open(folder) as model:
        archs.plan(model)


def test_experts_of_integers_are_refused(tmp_path: Path) -> None:
    tensors = mixtral() | {BLOCK + "experts.1.w1.weight": np.ones((INNER, WIDTH), np.int64)}
    with pytest.raises(UnsupportedError, match=r"experts\.1\.w1"):
        checkpoint.open(folders.write(tmp_path, MIXTRAL, tensors))


def test_experts_of_a_dense_model_are_refused(tmp_path: Path) -> None:
    name = "model.layers.1.mlp.experts.0.up_proj.weight"
    tensors = folders.weights() | {name: np.ones((INNER, WIDTH), dtype=np.float32)}
    with (
        pytest.raises(UnsupportedError, match="ffn_up_exps"),
        checkpoint.open(folders.write(tmp_path, tensors=tensors)) as model,
    ):
        archs.plan(model)


@pytest.mark.parametrize(
    ("change", "error", "names"),
    [
        ({"mlp_only_layers": [0]}, UnsupportedError, "without experts"),
        ({"decoder_sparse_step": 2}, UnsupportedError, "without experts"),
        ({"decoder_sparse_step": 0}, InvalidFileError, "decoder_sparse_step"),
        ({"num_experts": 0}, InvalidFileError, "num_experts"),
        ({"num_experts_per_tok": 0}, InvalidFileError, "num_experts_per_tok"),
        ({"num_experts_per_tok": 4}, InvalidFileError, "expert_used_count"),
        ({"norm_topk_prob": "yes"}, InvalidFileError, "norm_topk_prob"),
        ({"moe_intermediate_size": -1}, InvalidFileError, "moe_intermediate_size"),
    ],
)
def test_configs_of_experts_that_are_refused(
    change: dict[str, Any], error: type[Exception], names: str, tmp_path: Path
) -> None:
    head = np.ones(WIDTH // HEADS, dtype=np.float32)
    tensors = {name.replace("block_sparse_moe", "mlp"): a for name, a in fused().items()}
    for i in range(folders.LAYERS):
        for part in "qk":
            tensors[f"model.layers.{i}.self_attn.{part}_norm.weight"] = head
    good = folders.write(tmp_path / "good", QWEN3, tensors)
    with checkpoint.open(good) as model:
        assert isinstance(archs.plan(model).layers[0].feed_forward, MixtureOfExperts)
    folder = folders.write(tmp_path / "bad", QWEN3 | change, tensors)
    with pytest.raises(error, match=names), checkpoint.open(folder) as model:
        archs.plan(model)
