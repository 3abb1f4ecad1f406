"""`trit show`: every fact of a model, for people and as JSON, without reading weights."""

import hashlib
import json
from pathlib import Path

import pytest

import small_model
from trit import cli
from trit.files import gguf


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model.write(tmp_path / "model.gguf", small_model.arrays())


def test_json_has_every_fact(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(model), "--json"]) == 0
    out = capsys.readouterr()
    answer = json.loads(out.out)
    assert out.err == ""
    weights = small_model.arrays()
    assert answer["architecture"] == "llama"
    assert answer["name"] == "Small Model"
    assert answer["parameters"] == sum(array.size for array in weights.values())
    assert answer["context"] == 128
    assert (answer["layers"], answer["heads"], answer["kv_heads"]) == (2, 4, 2)
    assert answer["experts"] is None
    assert answer["licence"] == "mit"
    assert answer["template"] == "{{ messages }}"
    assert answer["tokenizer"]["tokens"] == small_model.VOCAB
    assert answer["tokenizer"]["pre"] == "gpt-2"
    assert (answer["tokenizer"]["bos_id"], answer["tokenizer"]["eos_id"]) == (1, None)
    assert answer["file_bytes"] == model.stat().st_size
    types = {row["type"]: row for row in answer["types"]}
    assert set(types) == {"f16", "f32"}
    matrices = [array for array in weights.values() if array.ndim == 2]
    assert types["f16"]["tensors"] == len(matrices)
    assert types["f16"]["bytes"] == 2 * sum(array.size for array in matrices)
    assert types["f16"]["bits_per_weight"] == 16
    total = sum(row["bytes"] for row in types.values())
    assert answer["bits_per_weight"] == pytest.approx(8 * total / answer["parameters"], abs=1e-4)
    assert "sha256" not in answer
    assert "tensors" not in answer


def test_text_says_what_the_json_says(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(model), "--tensors", "--hash"]) == 0
    text = capsys.readouterr().out
    lines = dict(line.split(None, 1) for line in text.splitlines() if line)
    assert lines["architecture"] == "llama"
    assert lines["context"] == "128"
    assert lines["licence"] == "mit"
    assert lines["template"] == "14 characters"
    assert lines["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert lines["F16"].split()[-1] == "16"
    assert lines["blk.1.ffn_down.weight"].split()[0] == "F16"
    assert "256 × 512" in lines["blk.1.ffn_down.weight"]


def test_hash_and_tensors_in_json(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", str(model), "--json", "--hash", "--tensors"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    found = {tensor["name"]: tensor for tensor in answer["tensors"]}
    assert found["blk.0.attn_k.weight"]["shape"] == [128, 256]
    assert found["blk.0.attn_norm.weight"]["type"] == "f32"
    assert len(found) == len(small_model.arrays())


def test_keys_of_odd_types_do_not_matter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = {
        "general.license": 7,
        "llama.context_length": "many",
        "llama.attention.head_count_kv": [2, 1],
        "llama.expert_count": True,
        "tokenizer.chat_template": 1.5,
    }
    model = small_model.write(tmp_path / "odd.gguf", small_model.arrays(), extra=odd)
    assert cli.main(["show", str(model), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["kv_heads"] == [2, 1]
    assert [answer[key] for key in ("licence", "context", "experts", "template")] == [None] * 4
    assert cli.main(["show", str(model)]) == 0
    assert "1 to 2 by layer" in capsys.readouterr().out


def test_a_vocabulary_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "vocabulary.gguf"
    gguf.write(model, small_model.keys(), [])
    assert cli.main(["show", str(model)]) == 0
    text = capsys.readouterr().out
    assert "None" not in text and "bits per weight" not in text and "64 tokens" in text
    assert cli.main(["show", str(model), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bits_per_weight"] is None


def test_the_picture_is_not_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="the extra plot")
    model = small_model.write(tmp_path / "model.svg", small_model.arrays())
    before = model.read_bytes()
    assert cli.main(["show", str(model), "--picture", str(model)]) == 2
    assert "is an input" in capsys.readouterr().err and model.read_bytes() == before


def test_ids_of_no_token_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = {"padding": (1 << 32) - 1, "unknown": -1, "eos": small_model.VOCAB, "eot": 0}
    extra = {f"tokenizer.ggml.{name}_token_id": number for name, number in ids.items()}
    model = small_model.write(tmp_path / "model.gguf", small_model.arrays(), extra=extra)
    assert cli.main(["show", str(model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(None, 1)[1] for line in lines if line.startswith("special")] == [
        "bos 1, eot 0"
    ]


def test_what_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.gguf").write_text("no model")
    (tmp_path / "empty").mkdir()
    for path in ("absent.gguf", "text.gguf", "empty"):
        assert cli.main(["show", str(tmp_path / path)]) == 1
        out = capsys.readouterr()
        assert out.out == ""
        assert out.err.startswith("trit: error: ")
        assert path in out.err
