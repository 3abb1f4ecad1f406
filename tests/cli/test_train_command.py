"""`trit train`: what it says before, during and after, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import tiny_run
from trit import cli
from trit.training import TrainResult, duration
from trit.training import log as logs

pytest.importorskip("torch", reason="training needs torch (extra train)")
pytest.importorskip("tokenizers", reason="training a tokenizer needs it (extra train)")


def run(*arguments: object) -> int:
    return cli.main(["train", *map(str, arguments), "--threads", "1"])


def test_a_model_and_its_twin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_run.write(tmp_path, {"seed = 3": "seed = 3\ntwin = true"})
    assert run(path) == 0
    said = capsys.readouterr()
    assert "run: BitNet b1.58, ternary: 2 layers of 32, 300 tokens" in said.err
    assert "run-float: BitNet b1.58, its float twin" in said.err
    assert "12 steps; 1,536 tokens" in said.err and "with 1 thread" in said.err
    assert "step 4: " in said.err and "bits per byte held out" in said.err
    assert "step 6: The " in said.err
    lines = said.out.splitlines()
    assert f"{tmp_path / 'run' / 'run.gguf'}: ternary, " in lines[0]
    assert "bits per byte on" in lines[1] and "mean KLD" in lines[2]
    assert "fallback: token_embd.weight: rows of 32 do not fit Q6_K, Q8_0 instead" in lines
    assert lines[-1].startswith("ternary against its float twin: ")


def test_ctrl_c_and_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_run.write(tmp_path)
    write = logs.Log.write

    def interrupted(self: logs.Log, event: str, step: int, values: dict[str, Any]) -> None:
        write(self, event, step, values)
        if (event, step) == ("step", 5):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(logs.Log, "write", interrupted)
    assert run(path, "--out", tmp_path / "there") == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert "stopping once all is in order" in said.err
    assert "the same command goes on there" in said.err
    assert logs.read(tmp_path / "there")[-1]["step"] == 5
    monkeypatch.undo()
    assert cli.main(["train", str(tmp_path / "there"), "-t", "3", "--json"]) == 0
    said = capsys.readouterr()
    assert "trit: warning: the run keeps the 1 threads it began with" in said.err
    assert "7 steps of 12, 5 are done" in said.err
    answer = json.loads(said.out)
    assert answer["kind"] == "ternary" and answer["steps"] == 12
    assert Path(answer["gguf"]).is_file() and answer["kld"] < 0.05


def test_progress_as_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny_run.write(tmp_path), "--twin", "float", "--jsonl", "--json") == 0
    said = capsys.readouterr()
    events = [json.loads(line) for line in said.err.splitlines() if line.startswith("{")]
    assert {"progress", "held_out", "sample"} <= {each["event"] for each in events}
    last = [each for each in events if each["event"] == "progress"][-1]
    assert last["remark"].startswith("loss ") and last["unit"] == "tokens"
    assert json.loads(said.out)["kind"] == "float"


def test_only_the_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tiny_run.write(tmp_path), "--dry-run", "--json") == 0
    (cost,) = json.loads(capsys.readouterr().out)
    assert cost["steps"] == 12 and cost["vocab"] == 300
    assert not (tmp_path / "run" / "result.json").exists()


def test_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tiny_run.write(tmp_path, {"width = 32": "widht = 32"})
    assert run(path) == 1
    assert "key 'model.widht': there is no such key" in capsys.readouterr().err
    assert run(tmp_path / "none.toml") == 2
    assert run(path, "--twin", "double") == 2
    assert "--twin double: expected float" in capsys.readouterr().err


def test_words(tmp_path: Path) -> None:
    from trit.cli.train import gap

    assert [duration(each) for each in (0.2, 80, 600, 9000)] == [
        "1 seconds", "80 seconds", "10 minutes", "2.5 hours",
    ]  # fmt: skip

    def result(bits: float, sha256: str = "a") -> TrainResult:
        return TrainResult(
            "float", tmp_path, tmp_path, tmp_path, 1, 1, 1, 1, bits, 1, sha256, 0, 1, 1, 1, (), None
        )

    assert gap(result(1.08), result(1.0)) == "ternary against its float twin: +8.00% bits per byte"
    assert "cannot be compared" in gap(result(1.0), result(1.0, "b"))
