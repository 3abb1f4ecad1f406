"""`trit bench`: llama-bench's table and JSON, and the limits beside."""

import json
from pathlib import Path

import pytest

import text_model
from trit.cli import main
from trit.evaluate import _machine
from trit.quantize import quantize


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model.write(tmp_path_factory.mktemp("models") / "model.gguf")


def test_json_is_a_list(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-p", "8,16", "-n", "2", "-d", "0,4", "-t", "1", "-r", "2", "--no-limits"]
    assert main(["bench", str(model), *arguments, "--json"]) == 0
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert [(row["n_prompt"], row["n_gen"], row["n_depth"]) for row in answer] == [
        (8, 0, 0), (16, 0, 0), (0, 2, 0), (8, 0, 4), (16, 0, 4), (0, 2, 4),
    ]  # fmt: skip
    assert all(len(row["samples_ts"]) == 2 and row["avg_ts"] > 0 for row in answer)
    assert all(row["predicted_memory_bytes"] > 28 << 20 for row in answer)
    assert captured.err.startswith("6 tests, 2 runs of each after a warm-up\n")


@pytest.mark.parametrize("flags", [["--cache-type", "q8_0"], ["-ctk", "q8_0", "-ctv", "q8_0"]])
def test_cache_type(model: Path, capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    arguments = ["-p", "8", "-n", "0", "-t", "1", "-r", "1", "--no-limits", "--json"]
    assert main(["bench", str(model), *arguments, *flags]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["type_k"], row["type_v"]) == ("q8_0", "q8_0")


def test_table_and_limits(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_machine, "READ_BYTES", 8 << 20)
    assert main(["bench", "-m", str(model), "-p", "8", "-n", "2", "-t", "1", "-r", "1"]) == 0
    captured = capsys.readouterr()
    assert captured.err.startswith("2 tests, 1 run of each after a warm-up")
    lines = captured.out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4]]
    assert cells[0] == ["model", "size", "params", "backend", "threads", "test", "t/s"]
    assert all(set(cell) <= {"-", ":"} for cell in cells[1])
    assert [row[5] for row in cells[2:]] == ["pp8", "tg2"] and "±" in cells[2][6]
    assert len({len(line) for line in lines[:4]}) == 1
    text = "\n".join(lines[4:])
    assert "limits with 1 thread: memory read at" in text and "int8 products at" in text
    assert "tg2, 1 thread: " in text and "% of the memory limit" in text


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "no model"),
        (["MODEL", "-p", "8,x"], 2, "-p 8,x"),
        (["MODEL", "-p", "0", "-n", "0"], 2, "nothing to measure"),
        (["MODEL", "-t", "0"], 2, "--threads 0"),
        (["MODEL", "-d", "4096"], 3, "made for 128"),
        (["MODEL", "--cache-type", "q9"], 2, "--cache-type q9: expected f32, f16, q8_0"),
        (["MODEL", "-ctk", "q8_0", "-ctv", "f16"], 2, "q8_0 and f16"),
        (["absent.gguf"], 1, "absent.gguf"),
    ],
)
def test_bad_requests(
    arguments: list[str],
    code: int,
    says: str,
    model: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [str(model) if word == "MODEL" else word for word in arguments]
    extra = ["-p", "8", "-n", "2"] if "-d" not in words and "-p" not in words else []
    assert main(["bench", *words, *extra, "--no-limits"]) == code
    captured = capsys.readouterr()
    assert captured.out == "" and says in captured.err.splitlines()[-1]


def test_a_figure_says_how_ternary_weights_were_multiplied(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ternary = model.with_name("ternary.gguf")
    quantize(model, ternary, "TQ2_0", force=True)
    arguments = ["-p", "8", "-n", "0", "-t", "1", "-r", "1", "--no-limits"]
    capsys.readouterr()
    for path, chosen, expected in (
        (model, "add", None),
        (ternary, "", "dot"),
        (ternary, "dot", "dot"),
        (ternary, "add", "add"),
    ):
        monkeypatch.setenv("TRIT_TERNARY", chosen)
        assert main(["bench", str(path), *arguments, "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert row["ternary"] == expected
    assert main(["bench", str(ternary), *arguments]) == 0
    assert capsys.readouterr().out.endswith(", ternary products by add\n")
    monkeypatch.setenv("TRIT_TERNARY", "none")
    assert main(["bench", str(ternary), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "TRIT_TERNARY=none: expected dot or add" in captured.err
