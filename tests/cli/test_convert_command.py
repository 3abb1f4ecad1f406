"""`trit convert`: its flags, old and new, its answer and its remarks."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import small_model
from trit import cli
from trit.files import gguf


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return small_model.write(tmp_path / "model.gguf", small_model.arrays())


def types(path: Path) -> set[str]:
    with gguf.open(path) as file:
        return {tensor.format.name for tensor in file.tensors.values()}


def test_new_and_old_flags(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    assert cli.main(["convert", str(model), "-o", str(out), "--type", "f32"]) == 0
    assert types(out) == {"f32"}
    assert cli.main(["convert", str(model), "--outfile", str(out), "--outtype", "bf16"]) == 0
    assert types(out) == {"f32", "bf16"}
    assert cli.main(["convert", str(model), "--outfile", str(out)]) == 0
    assert types(out) == {"f32", "f16"}


def test_auto_takes_the_type_of_the_source(tmp_path: Path) -> None:
    model = small_model.write(tmp_path / "in.gguf", small_model.arrays(), "bf16")
    out = tmp_path / "out.gguf"
    assert cli.main(["convert", str(model), "-o", str(out), "--type", "auto"]) == 0
    assert types(out) == {"f32", "bf16"}


def test_answer_on_stdout_remarks_on_stderr(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"older")
    assert cli.main(["convert", str(model), "-o", str(out), "--type", "f32", "--json"]) == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert answer["path"] == str(out)
    assert answer["bytes"] == out.stat().st_size
    assert answer["dry_run"] is False
    assert len(answer["tensors"]) == len(small_model.arrays())
    assert "32.00 bits per weight), about a second" in said.err
    assert "is replaced" in said.err
    assert cli.main(["convert", str(model), "--dry-run", "--type", "f32"]) == 0
    assert f"{out.stat().st_size:,} bytes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--type", "q5_k", "-o", "out.gguf"], 2, "expected one of f32"),
        (["--type", "Q4_K_M", "-o", "out.gguf"], 2, "'trit quantize' writes Q4_K_M"),
        ([], 2, "no output"),
        (["-o", "model.gguf"], 2, "is an input"),
        (["-o", "absent/out.gguf"], 2, "no folder"),
        (["-o", "out.gguf", "--threads", "0"], 2, "threads"),
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
    assert cli.main(["convert", "model.gguf", *arguments]) == code
    said = capsys.readouterr()
    assert message in said.err
    assert said.out == ""
    assert [path.name for path in model.parent.iterdir()] == ["model.gguf"]


def test_interrupted_it_says_how_to_go_on(tmp_path: Path) -> None:
    """A real SIGINT in the middle: exit code 130, one line, and the same command finishes."""
    weights = small_model.arrays()
    weights["token_embd.weight"] = weights["token_embd.weight"].repeat(400, axis=0)  # 13 MB
    weights |= {f"blk.{i}.ffn_up.weight": weights["token_embd.weight"] for i in range(2, 6)}
    model = small_model.write(tmp_path / "model.gguf", weights)
    out = tmp_path / "out.gguf"
    slow = (
        "import sys, time; from trit import cli\nfrom trit.job import transcode\n"
        "pieces = transcode.Transcoder.pieces\n"
        "def slowly(*given):\n"
        "    for piece in pieces(*given):\n"
        "        time.sleep(0.05); yield piece\n"
        "transcode.Transcoder.pieces = slowly\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )
    command = [sys.executable, "-c", slow, "convert", str(model), "-o", str(out), "--type", "f32"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    journal = Path(f"{out}.partial.journal")
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (
        journal.exists() and len(journal.read_text().splitlines()) > 3
    ):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "the same command goes on from there" in said
    assert not out.exists()
    assert Path(f"{out}.partial").exists()
    done = subprocess.run(
        [sys.executable, "-m", "trit", *command[3:], "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["resumed_tensors"] > 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.gguf", "out.gguf"]
