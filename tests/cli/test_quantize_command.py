"""`trit quantize`: the new flags, llama-quantize's arguments, what it says and where."""

import json
from pathlib import Path

import pytest

import small_model
from trit import cli
from trit.cli.quantize import Words, read_words
from trit.errors import UsageError
from trit.files import gguf


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model.write(tmp_path / "model.gguf", small_model.arrays(odd=64))


def file_type(path: Path) -> object:
    with gguf.open(path) as file:
        return file.metadata["general.file_type"]


@pytest.mark.parametrize(
    ("words", "option", "expected"),
    [
        ([], "Q8_0", Words(None, None, None)),
        (["out.gguf"], "Q8_0", Words(Path("out.gguf"), None, None)),
        (["out.gguf", "4"], "Q8_0", Words(Path("out.gguf"), None, 4)),
        (["out.gguf", "Q3_K_M"], None, Words(Path("out.gguf"), "Q3_K_M", None)),
        (["out.gguf", "q3_k_m", "4"], None, Words(Path("out.gguf"), "q3_k_m", 4)),
        (["out.gguf", "12", "4"], None, Words(Path("out.gguf"), "12", 4)),
        (["Q3_K_M"], None, Words(None, "Q3_K_M", None)),
        (["Q3_K_M", "2"], None, Words(None, "Q3_K_M", 2)),
        (["out.gguf", "nonsense"], None, Words(Path("out.gguf"), "nonsense", None)),
        (["out.gguf", "Q4_0"], "Q8_0", Words(Path("out.gguf"), "Q4_0", None)),
    ],
)
def test_words(words: list[str], option: str | None, expected: Words) -> None:
    assert read_words(words, option) == expected


def test_too_many_words() -> None:
    with pytest.raises(UsageError, match="more"):
        read_words(["out.gguf", "Q8_0", "4", "more"], None)


def test_dry_run_is_exact_and_names_types(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["quantize", str(model), "--type", "Q4_K_M", "--dry-run", "--json"]) == 0
    said = capsys.readouterr()
    planned = json.loads(said.out)
    types = {tensor["name"]: tensor["type"] for tensor in planned["tensors"]}
    assert types["blk.0.attn_q.weight"] == "q5_0"
    assert types["blk.0.ffn_down.weight"] == "q4_k"
    assert types["blk.0.attn_norm.weight"] == "f32"
    assert planned["path"] is None
    for line in (
        "fallback: blk.*.attn_q.weight (2 tensors): rows of 320 do not fit Q4_K, Q5_0 instead",
        "fallback: token_embd.weight: rows of 320 do not fit Q6_K, Q8_0 instead",
    ):
        assert line in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    out = tmp_path / "out.gguf"
    assert cli.main(["quantize", str(model), str(out), "--type", "q4_k_m", "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["tensors"] == planned["tensors"]
    assert done["bytes"] == planned["bytes"] == out.stat().st_size


def test_old_habits(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.gguf"
    assert cli.main(["quantize", str(model), str(out), "Q3_K_M"]) == 0
    assert file_type(out) == 12
    assert cli.main(["quantize", "--allow-requantize", str(model), str(out), "q8_0", "2"]) == 0
    assert file_type(out) == 7
    monkeypatch.chdir(tmp_path)
    assert cli.main(["quantize", "--token_embedding_type", "q5_1", "model.gguf", "Q4_0"]) == 0
    with gguf.open("ggml-model-Q4_0.gguf") as file:
        assert file["token_embd.weight"].format.name == "q5_1"


def test_overrides_reach_the_file(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.gguf"
    flags = ["--tensor-type", "attn_v=q8_0", "--tensor-type", "nothing=f16"]
    assert cli.main(["quantize", str(model), str(out), "--type", "Q4_0", "--pure", *flags]) == 0
    assert "warning: --tensor-type nothing decides nothing" in capsys.readouterr().err
    with gguf.open(out) as file:
        found = {name: tensor.format.name for name, tensor in file.tensors.items()}
    assert found["blk.1.attn_v.weight"] == "q8_0"
    assert {found[name] for name in ("token_embd.weight", "blk.0.ffn_up.weight")} == {"q4_0"}


def test_a_quantized_source_is_warned_of(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.gguf"
    assert cli.main(["quantize", str(model), str(small), "Q4_0"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert cli.main(["quantize", str(small), "--type", "Q2_K", "--dry-run"]) == 0
    assert "warning: the source is quantized already (Q4_0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["out.gguf"], 2, "no type"),
        (["out.gguf", "Q9_K"], 2, "unknown quantization type 'Q9_K'"),
        (["--type", "Q8_0"], 2, "no output"),
        (["out.gguf", "Q4_0", "--type", "Q8_0"], 2, "type is given twice"),
        (["out.gguf", "-o", "other.gguf", "--type", "Q8_0"], 2, "output is given twice"),
        (["out.gguf", "Q8_0", "2", "--threads", "3"], 2, "thread count is given twice"),
        (["out.gguf", "Q8_0", "1025"], 2, "1025 threads: expected a number from 1 to 1024"),
        (["out.gguf", "Q8_0", "--bits", "3"], 2, "for folders: add --to"),
        (["out.gguf", "Q8_0", "--group-size", "7"], 2, "for folders: add --to"),
        (["out.gguf", "Q8_0", "--symmetric"], 2, "for folders: add --to"),
        (["out", "--to", "awq", "--pure"], 2, "are for GGUF files"),
        (["out", "--to", "awq", "--force"], 2, "are for GGUF files"),
        (["out", "--to", "awq", "--tensor-type", "a=q8_0"], 2, "are for GGUF files"),
        (["out", "--to", "awq", "--output-tensor-type", "q8_0"], 2, "are for GGUF files"),
        (["out", "--to", "awq", "--token-embedding-type", "q8_0"], 2, "are for GGUF files"),
        (["out.gguf", "Q8_0", "--tensor-type", "x"], 2, "PATTERN=TYPE"),
        (["out.gguf", "Q8_0", "--output-tensor-type", "q9"], 2, "unknown format 'q9'"),
        (["out.gguf", "Q8_0", "--imatrix", "absent.gguf"], 1, "absent.gguf"),
        (["out.gguf", "Q8_0", "--imatrix", "model.gguf"], 1, "importance data"),
        (["model.gguf", "Q8_0"], 2, "is an input"),
        (["out.gguf", "TQ2_0", "--tensor-type", "attn=f16"], 1, "--force"),
        (["out.gguf", "TQ1_0"], 1, "trit distill MODEL --student TQ2_0"),
        (["out.gguf", "Q8_0", "--tensor-type", "ffn_down=nvfp4"], 1, "does not write"),
    ],
)
def test_bad_requests(
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(model.parent)
    assert cli.main(["quantize", "model.gguf", *arguments]) == code
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert [path.name for path in model.parent.iterdir()] == ["model.gguf"]


@pytest.mark.parametrize("out", ["folder", "/dev/null"])
def test_nothing_is_announced_of_what_cannot_be_written(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(model.parent)
    Path("folder").mkdir()
    assert cli.main(["quantize", "model.gguf", out, "Q8_0"]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"trit: error: {out} is ") and said.out == ""


def test_jsonl_progress(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.gguf"
    assert cli.main(["quantize", str(model), str(out), "Q8_0", "--jsonl"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    events = [json.loads(line) for line in lines]
    assert {event["what"] for event in events} >= {"writing", "verifying"}
    assert events[-1]["done"] == events[-1]["total"]
