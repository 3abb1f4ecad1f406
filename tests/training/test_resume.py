"""A run that is killed, anywhere and often, writes the same losses to the last bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny_run
from trit.errors import InvalidFileError, UsageError
from trit.training import TrainResult, train
from trit.training import log as logs

torch = pytest.importorskip("torch", reason="training needs torch (extra train)")
pytest.importorskip("tokenizers", reason="training a tokenizer needs it (extra train)")
states = pytest.importorskip("trit.training.state")

KILLS = 20


class Killed(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """The run that nothing disturbs."""
    return train(tiny_run.write(tmp_path_factory.mktemp("whole")), threads=1)


def same(result: TrainResult, whole: TrainResult) -> None:
    assert tiny_run.diary(result.path) == tiny_run.diary(whole.path)
    files = [np.load(each.path / states.FILE) for each in (result, whole)]
    for name in files[0].files:
        assert name == "about" or np.array_equal(*(file[name] for file in files)), name
    assert result.bits_per_byte == whole.bits_per_byte and result.kld == whole.kld
    assert result.gguf.read_bytes() == whole.gguf.read_bytes()


def test_killed_at_twenty_random_moments(whole: TrainResult, tmp_path: Path) -> None:
    path = tiny_run.write(tmp_path)
    random = np.random.default_rng(0)
    kills = 0
    while kills < KILLS:
        lines = int(random.integers(0, 8))

        def die(entry: dict[str, Any]) -> None:
            nonlocal lines
            lines -= 1
            if lines < 0:
                raise Killed

        try:
            train(path, threads=1, on_event=die)
            # Over before its end came: begin again.
            for name in (states.FILE, "result.json"):
                (tmp_path / "run" / name).unlink()
        except Killed:
            kills += 1
            # What a kill in the middle of writing leaves.
            with (tmp_path / "run" / logs.FILE).open("a") as file:
                file.write('{"event": "step", "st')
            (tmp_path / "run" / f"{states.FILE}.partial").write_bytes(b"half")
    same(train(path, threads=1), whole)


def test_killed_for_real(whole: TrainResult, tmp_path: Path) -> None:
    path = tiny_run.write(tmp_path)
    script = f"from trit.training import train; train({str(path)!r}, threads=1)"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for lines in (2, 11):
        process = subprocess.Popen([sys.executable, "-c", script], env=environment)
        end = time.monotonic() + 120
        while len(logs.read(tmp_path / "run")) < lines and process.poll() is None:
            assert time.monotonic() < end
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
    same(train(path, threads=1), whole)


def test_a_folder_goes_on_without_its_texts(whole: TrainResult, tmp_path: Path) -> None:
    path = tiny_run.write(tmp_path)
    stops = iter([False] * 6 + [True])
    with pytest.raises(KeyboardInterrupt):
        train(path, threads=1, stop=lambda: next(stops))
    assert logs.read(tmp_path / "run")[-1]["step"] == 7  # saved where it was asked to stop
    (tmp_path / "essay.txt").unlink()
    path.unlink()
    with pytest.raises(UsageError, match="leave out --out"):
        train(tmp_path / "run", tmp_path / "elsewhere")
    same(train(tmp_path / "run", threads=2), whole)  # threads are those it began with
    same(train(tmp_path / "run"), whole)  # it is done: only the model is written again


def test_another_run_is_not_taken_up(tmp_path: Path) -> None:
    path = tiny_run.write(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(path, threads=1, stop=lambda: True)
    tiny_run.write(tmp_path, {"seed = 3": "seed = 4"})
    with pytest.raises(UsageError, match="was begun otherwise: seed was 3, is 4"):
        train(path)
    tiny_run.write(tmp_path)
    with pytest.raises(UsageError, match="it is no float twin"):
        _as_twin(path, tmp_path)
    with pytest.raises(UsageError, match="it is no float twin"):
        train(tmp_path / "run", twin=True)
    copy = tmp_path / "run" / "config.toml"
    copy.write_text(copy.read_text().replace("batch = 4", "batch = 2"))
    with pytest.raises(UsageError, match="batch was 4, is 2"):
        train(tmp_path / "run")
    with (tmp_path / "essay.txt").open("a") as file:
        file.write("more")
    with pytest.raises(UsageError, match=r"the text essay\.txt has changed"):
        train(path)


def _as_twin(path: Path, folder: Path) -> None:
    (folder / "run").rename(folder / "run-float")
    try:
        train(path, twin=True)
    finally:
        (folder / "run-float").rename(folder / "run")


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    path = tiny_run.write(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(path, threads=1, stop=lambda: True)
    state = tmp_path / "run" / states.FILE
    raw = bytearray(state.read_bytes())
    raw[len(raw) // 2] ^= 1
    for broken in (bytes(raw), bytes(raw[:1000]), b""):
        state.write_bytes(broken)
        with pytest.raises(InvalidFileError, match="expected the state of this run"):
            train(path)
    other = tiny_run.write(tmp_path / "other", {"batch = 4": "batch = 5"})
    with pytest.raises(KeyboardInterrupt):
        train(other, threads=1, stop=lambda: True)
    (tmp_path / "other" / "run" / states.FILE).rename(state)
    with pytest.raises(InvalidFileError, match="got: that of another run"):
        train(path)
    state.unlink()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(InvalidFileError, match="is not as trit wrote it"):
        train(tmp_path / "run")
