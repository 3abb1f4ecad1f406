"""`trit distill`: what it says before, during and after, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

import tiny_distillation as tiny
from trit import cli
from trit.job.efforts import EFFORTS
from trit.training import log as logs

pytest.importorskip("torch", reason="distilling needs torch (extra train)")

SMALL = {
    "steps": 6, "batch": 2, "context": 32, "held-out": 0.2, "measure-every": 2, "rate": 0.002,
    "measure-windows": 2, "scale-rate": 0.001, "warmup": 1, "checkpoint-every": 2, "seed": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.teacher(tmp_path_factory.mktemp("teacher") / "teacher.gguf")


def run(teacher: Path, out: Path, *arguments: object) -> int:
    small = [f"--{name}={value}" for name, value in SMALL.items()]
    given = [teacher, "--student", "Q4_0", "--data", tiny.ESSAY, "--calibration", tiny.ESSAY]
    return cli.main(["distill", *map(str, [*given, "-o", out, *small, *arguments]), "-t", "1"])


def test_cost_ctrl_c_and_on(
    teacher: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    assert run(teacher, out, "--dry-run", "--json") == 0
    said = capsys.readouterr()
    cost = json.loads(said.out)
    assert cost["steps"] == 6 and cost["tokens"] == 6 * 2 * 32 and cost["path"] == str(out)
    assert "6 steps; 384 tokens" in said.err and "with 1 thread" in said.err
    write = logs.Log.write

    def interrupted(self: logs.Log, event: str, step: int, values: dict[str, Any]) -> None:
        write(self, event, step, values)
        if (event, step) == ("step", 3):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(logs.Log, "write", interrupted)
    assert run(teacher, out) == 130
    said = capsys.readouterr()
    assert said.out == ""
    assert "the same command goes on there" in said.err
    monkeypatch.undo()
    assert run(teacher, out) == 0
    said = capsys.readouterr()
    assert "3 steps of 6, 3 are done" in said.err
    assert "step 4: KLD 0." in said.err and "same top token" in said.err
    lines = said.out.splitlines()
    assert lines[0].startswith(f"{out / 'run.gguf'}: Q4_0, ")
    assert lines[1].startswith("mean KLD 0.") and " → " in lines[1]
    assert run(teacher, out, "--jsonl", "--json") == 0  # it is done: its figures again
    answer = json.loads(capsys.readouterr().out)
    assert answer["steps"] == 6 and Path(answer["gguf"]).is_file()


def test_help_names_every_effort(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["distill", "--help"]) == 0
    assert f"quantization: {', '.join(EFFORTS)}." in " ".join(capsys.readouterr().out.split())


def test_usage(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(teacher, tmp_path / "run", "--rate", "-1") == 2
    assert "--rate -1.0: expected 0 or more" in capsys.readouterr().err
    assert run(tmp_path / "none.gguf", tmp_path / "run") != 0
