"""Folders for other engines: what is written, that it is whole or absent, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import small_folder
from trit import cli
from trit.errors import InvalidFileError, UnsupportedError, UsageError
from trit.export import export
from trit.files import _folder_writer, checkpoint, quantized, safetensors
from trit.quantizers import hqq, rtn

TARGETS = ("awq", "compressed-tensors")
LINEAR = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_folder.write(tmp_path / "model")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", ["rtn", "hqq"])
def test_what_is_chosen_is_what_is_read_back(
    model: Path, tmp_path: Path, target: str, method: str
) -> None:
    out = tmp_path / "out"
    result = export(model, out, target, group_size=16, quantizer=method)
    source = small_folder.weights()
    quantize = {"rtn": rtn, "hqq": hqq}[method].quantize_groups
    assert result.linears == 14
    file = safetensors.open(out)
    stored = sum(part.data.nbytes for part in file.stored.values())
    assert result.bytes == stored + sum(tensor.nbytes for tensor in file.tensors.values())
    config = json.loads((out / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == target
    weights = quantized.open_weights(file, config, out / "config.json")
    assert set(weights.names) == set(source)
    for name, weight in source.items():
        got = weights[name].decode()
        if weight.ndim == 2 and "embed" not in name:
            weight = quantize(weight, 4, 16).weights()
        elif target == "awq":
            weight = weight.astype(np.float16).astype(np.float32)
        assert np.array_equal(got, weight), name


@pytest.mark.parametrize("bits", [2, 3, 5, 8])
def test_other_numbers_of_bits(model: Path, tmp_path: Path, bits: int) -> None:
    out = tmp_path / "out"
    export(model, out, "compressed-tensors", bits=bits, group_size=32)
    with checkpoint.open(out) as read:
        expected = rtn.quantize_groups(small_folder.weights()[LINEAR], bits, 32).weights()
        assert np.array_equal(read.tensors["blk.0.ffn_up.weight"].decode(), expected)


def test_bfloat16_stays_bfloat16(tmp_path: Path) -> None:
    model = small_folder.write(tmp_path / "model", "bf16")
    export(model, tmp_path / "out", "compressed-tensors", group_size=16)
    with safetensors.open(tmp_path / "out") as file:
        assert {tensor.format.name for tensor in file.tensors.values()} == {"bf16"}
        assert file.metadata["trit.source.sha256"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
    export(model, tmp_path / "awq", "awq", group_size=16)
    with safetensors.open(tmp_path / "awq") as file:
        assert {tensor.format.name for tensor in file.tensors.values()} == {"f16"}


def test_tokenizer_and_card_come_along(model: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "generation_config.json"):
        (model / name).write_text("{}")
    (model / "tokenizer.json").unlink()
    (model / "README.md").write_text("---\nlicense: mit\n---\n")
    (model / "model.safetensors.index.json.txt").write_text("")
    export(model, tmp_path / "out", "awq", group_size=16)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "generation_config.json", "README.md", "model.safetensors"}
    (model / "secrets.txt").symlink_to(tmp_path / "out" / "config.json")
    with pytest.raises(InvalidFileError, match="a link to"):
        export(model, tmp_path / "more", "awq", group_size=16)
    assert not (tmp_path / "more").exists()


def test_shards_with_an_index(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    export(model, whole, "compressed-tensors", group_size=16)
    monkeypatch.setattr(_folder_writer, "SHARD_BYTES", 4000)
    export(model, out, "compressed-tensors", group_size=16)
    assert len(list(out.glob("model-*.safetensors"))) > 3
    with checkpoint.open(whole) as one, checkpoint.open(out) as many:
        assert set(one.tensors) == set(many.tensors)
        for name, tensor in one.tensors.items():
            assert np.array_equal(tensor.data, many.tensors[name].data)


def test_whole_or_absent(model: Path, tmp_path: Path) -> None:
    bad = small_folder.weights()
    bad["model.layers.1.mlp.down_proj.weight"][3, 4] = np.inf
    broken = small_folder.write(tmp_path / "bad", arrays=bad)
    out = tmp_path / "out"
    with pytest.raises(InvalidFileError, match=r"down_proj.*\[3, 4\].*finite weight, got inf"):
        export(broken, out, "awq", group_size=16)
    assert not out.exists() and not (tmp_path / "out.partial").exists()
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "left").write_text("by a killed job")
    export(model, out, "awq", group_size=16)
    assert not (tmp_path / "out.partial").exists() and not (out / "left").exists()
    with pytest.raises(UsageError, match="there already"):
        export(model, out, "awq", group_size=16)


def test_what_float16_cannot_hold(tmp_path: Path) -> None:
    arrays = small_folder.weights()
    arrays["model.norm.weight"][:] = 1e6
    model = small_folder.write(tmp_path / "model", arrays=arrays)
    with pytest.raises(UnsupportedError, match=r"model\.norm\.weight.*ends at 65504"):
        export(model, tmp_path / "out", "awq", group_size=16)
    export(model, tmp_path / "out", "compressed-tensors", group_size=16)


def test_settings_that_no_folder_can_have(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="groups of 128 do not divide 32 columns; --group-size 32"):
        export(model, out, "awq")
    with pytest.raises(UsageError, match="awq of 3 bits: expected 4"):
        export(model, out, "awq", bits=3, group_size=16)
    with pytest.raises(UsageError, match="cannot write 'gptq'"):
        export(model, out, "gptq")
    with pytest.raises(UsageError, match="quantizer 'magic'"):
        export(model, out, "awq", quantizer="magic")
    with pytest.raises(UnsupportedError, match="folders are written from folders"):
        export(model / "model.safetensors", out, "awq", group_size=16)
    assert not out.exists()


def test_the_command(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["quantize", str(model), str(out), "--to", "awq", "--group-size", "16"]
    assert cli.main([*words, "--dry-run", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert not out.exists() and planned["path"] is None
    assert cli.main([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["bytes"] == planned["bytes"]
    assert answer["linears"] == 14
    with safetensors.open(out) as file:
        assert "rtn" in file.metadata["trit.recipe"]
    assert cli.main([*words, "--type", "Q4_0"]) == 2
    assert cli.main(["quantize", str(model), "--to", "awq", "--group-size", "16"]) == 2
    assert "no output" in capsys.readouterr().err
    # A second time from what was written: read as any folder, with a warning.
    again = [str(out), str(tmp_path / "again"), "--to", "compressed-tensors", "--group-size", "16"]
    assert cli.main(["quantize", *again]) == 0
    assert "quantized already" in capsys.readouterr().err
