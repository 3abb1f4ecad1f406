"""`trit synth`: what it prints, what `run` then warns of, and which flags make no sense."""

import json
from pathlib import Path

import pytest

from trit import cli
from trit.cli.synth import make_shape
from trit.errors import UsageError
from trit.files import gguf
from trit.synth.shapes import SHAPES

SIZES = ["--layers", "1", "--width", "256", "--heads", "4", "--ffn", "256", "--vocab", "300"]


def test_writes_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny.gguf"
    assert cli.main(["synth", "-o", str(out), *SIZES, "--kv-heads", "2", "--type", "Q6_K"]) == 0
    said = capsys.readouterr().out
    assert f"{out}: Q6_K" in said and f"{out.stat().st_size:,} bytes" in said
    with gguf.open(out) as file:
        assert file.metadata["llama.attention.head_count_kv"] == 2


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny.gguf"
    arguments = ["synth", "bitnet-2b", *SIZES, "-o", str(out), "--type", "tq2_0", "--seed", "5"]
    assert cli.main([*arguments, "--kv-heads", "4", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["shape"] == "bitnet-2b, changed" and said["seed"] == 5
    assert said["bytes"] == out.stat().st_size and said["type"] == "TQ2_0"
    assert {each["source_type"] for each in said["tensors"]} == {"random"}


def test_pure_is_one_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "tiny.gguf"
    assert cli.main(["synth", "-o", str(out), *SIZES, "--type", "Q2_K", "--pure", "--json"]) == 0
    types = {each["type"] for each in json.loads(capsys.readouterr().out)["tensors"]}
    assert types == {"f32", "q2_k"}


def test_run_warns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    out = tmp_path / "tiny.gguf"
    assert cli.main(["synth", "-o", str(out), *SIZES]) == 0
    capsys.readouterr()
    assert cli.main(["run", str(out), "-p", "Hi", "-n", "2", "--seed", "1"]) == 0
    said = capsys.readouterr()
    assert "weights are random" in said.err and "random" not in said.out


def test_rows_that_do_not_fit_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = [*SIZES[:-4], "--ffn", "96", "--vocab", "300"]
    assert cli.main(["synth", "-o", str(tmp_path / "tiny.gguf"), *sizes]) == 0
    assert "fallback: blk.*.ffn_down.weight: rows of 96" in capsys.readouterr().err


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "tiny.gguf")
    for arguments, said in (
        (["synth", "-o", out], "no shape"),
        (["synth", "llama", "-o", out], "no shape is called 'llama'"),
        (["synth", "bitnet-2b", "-o", out, "--type", "Q7"], "unknown type 'Q7'"),
        (["synth", "bitnet-2b"], "Missing option"),
        (["synth", "-o", str(tmp_path / "no" / "folder"), *SIZES], "there is no folder"),
    ):
        assert cli.main(arguments) == 2
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_shapes_by_name_and_by_sizes() -> None:
    assert make_shape("Llama-3-8B", {}) is SHAPES["llama-3-8b"]
    changed = make_shape("llama-3-8b", {"layers": 2})
    assert changed.layers == 2 and changed.width == SHAPES["llama-3-8b"].width
    with pytest.raises(UsageError, match="also give --width, --vocab"):
        make_shape(None, {"layers": 1, "heads": 2, "ffn": 64})
    assert make_shape(None, dict(layers=1, width=64, heads=2, ffn=64, vocab=300)).kv_heads == 2
