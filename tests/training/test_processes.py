"""Two processes train as one does, to float tolerance, and only the first of them writes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tiny_run
from trit.errors import UsageError
from trit.training import log as logs
from trit.training import train

torch = pytest.importorskip("torch", reason="training needs torch (extra train)")
pytest.importorskip("tokenizers", reason="training a tokenizer needs it (extra train)")
pytest.importorskip("accelerate", reason="several processes need accelerate (extra train)")

# Both sum the same float32 products in another order; twelve steps carry the difference on.
RELATIVE = 1e-4


def launched(path: Path) -> subprocess.CompletedProcess[str]:
    """`accelerate launch` with two processes on this machine's CPU, through gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", str(port), "-m", "trit", "train", str(path), "-t", "1", "--json",
    ]  # fmt: skip
    variables = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true"}
    return subprocess.run(
        command, env=os.environ | variables, capture_output=True, text=True, timeout=300
    )


def losses(folder: Path) -> list[float]:
    return [each["loss"] for each in logs.read(folder) if each["event"] == "step"]


def test_two_processes_give_the_loss_of_one(tmp_path: Path) -> None:
    alone = train(tiny_run.write(tmp_path / "alone"), threads=1)
    done = launched(tiny_run.write(tmp_path / "both"))
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "both" / "run"
    np.testing.assert_allclose(losses(folder), losses(alone.path), rtol=RELATIVE)
    assert [line["event"] for line in logs.read(folder)] == [
        line["event"] for line in logs.read(alone.path)
    ], "one of them writes the diary"
    assert done.stdout.count('"bits_per_byte"') == 1, "and tells the result"
    measured = [each["bits_per_byte"] for each in logs.read(folder) if "bits_per_byte" in each]
    assert measured[-1] == pytest.approx(alone.bits_per_byte, rel=RELATIVE)
    assert (folder / "run.gguf").stat().st_size == alone.gguf.stat().st_size


def test_a_batch_without_equal_shares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="expected a multiple of 3, the number of processes"):
        train(tiny_run.write(tmp_path))
