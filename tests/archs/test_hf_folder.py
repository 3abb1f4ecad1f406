"""HF folders as virtual GGUFs: what is renamed, transformed, left out, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import folders
import numpy as np
import pytest
from folders import CONFIG, HEADS, VOCAB, WIDTH

from trit import archs
from trit.errors import InvalidFileError, UnsupportedError
from trit.files import checkpoint


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
    ({"quantization_config": {"quant_method": "gptq"}}, "quantized"),
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
