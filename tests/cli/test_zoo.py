"""`trit pull`, `list`, `rm` and the parts of the command line they share."""

import io
import json
from pathlib import Path

import pytest

from trit import cli, zoo
from trit.cli import _progress, _resolve, _terminal
from trit.errors import SourceError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "trit" / "models"


def put(cache: Path, name: str) -> Path:
    """A file of the right size stands for a pulled model."""
    model = zoo.models()[name]
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / model.file).open("wb") as file:
        file.truncate(model.size_bytes)
    return cache / model.file


def test_list_shows_what_is_here_and_what_could_be(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(cache, "gemma-3-270m")
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in lines[1:]}
    assert set(rows) == set(zoo.models())
    assert "  yes   Gemma Terms of Use" in rows["gemma-3-270m"]
    assert " 93.8 MiB  no    Apache-2.0" in rows["smollm2-135m-instruct"]


def test_list_on_a_narrow_terminal(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No line is cut: what a model is about has lines of its own."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(len(line) <= 80 for line in out.splitlines())
    words = " ".join(out.split())
    assert all(model.description in words for model in zoo.models().values())


def test_list_as_json(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(cache, "gemma-3-270m")
    assert cli.main(["ls", "--json"]) == 0
    entries = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries["gemma-3-270m"]["path"] == str(path)
    assert entries["gemma-3-270m"]["bytes"] == 253113024
    assert entries["smollm2-135m-instruct"]["pulled"] is False


def test_pull_prints_the_path_only(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(cache, "gemma-3-270m")
    assert cli.main(["pull", "gemma-3-270m"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{path}\n"
    assert captured.err == "gemma-3-270m: already here, 241.4 MiB\n"
    assert cli.main(["pull", "gemma-3-270m", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["downloaded"] is False and answer["licence"] == "Gemma Terms of Use"


def test_rm_frees_the_space(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(cache, "gemma-3-270m")
    assert cli.main(["rm", "gemma-3-270m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["freed_bytes"] == 253113024
    assert not path.exists()
    assert cli.main(["rm", "gemma-3-270m"]) == 1
    assert "is not pulled" in capsys.readouterr().err


def test_a_command_given_an_unknown_model(cache: Path) -> None:
    with pytest.raises(SourceError, match="no such file or folder"):
        _resolve.resolve("nothing-like-it")


class Clock:
    """Time that passes only when told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(_progress.time, "monotonic", lambda: self.now)


def test_progress_in_a_log_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    mib = 1 << 20
    with _progress.Progress() as progress:
        for second in range(13):
            clock.now = 100.0 + second
            progress("m", second * mib, 13 * mib)
        progress("m", 13 * mib, 13 * mib)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "m: 5.0 MiB of 13.0 MiB (38%), 1.0 MiB/s, 8 s left",
        "m: 10.0 MiB of 13.0 MiB (76%), 1.0 MiB/s, 3 s left",
    ]


def test_slow_work_has_a_rate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    with _progress.Progress(unit="tensor") as progress:
        for done in range(4):
            progress("m", done, 200)
            clock.now += 16.0
            progress("m", done, 200)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "m: 0 tensors of 200 tensors (0%)"
    assert lines[-1] == "m: 3 tensors of 200 tensors (1%), 0.0469 tensors/s, 4203 s left"


def test_progress_as_json_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch)
    with _progress.Progress(jsonl=True, unit="tensor") as progress:
        for step in range(5):
            clock.now = 100.0 + step / 10
            progress("quantize", step, 4)
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["done"] for event in events] == [0, 4]
    assert events[1] == {
        "event": "progress",
        "what": "quantize",
        "done": 4,
        "total": 4,
        "unit": "tensors",
        "seconds": 0.4,
    }


def test_progress_draws_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with _progress.Progress(unit="chunks") as progress:
        progress("eval", 1, 4)
        progress("eval", 4, 4)
    assert "eval" in terminal.getvalue() and "4/4" in terminal.getvalue()
    assert "\x1b[3" not in terminal.getvalue()  # no colour


def test_sizes_and_tables() -> None:
    assert [_terminal.size(n) for n in (0, 1023, 1536, 98362432, 5 << 40)] == [
        "0 B", "1023 B", "1.5 KiB", "93.8 MiB", "5120.0 GiB",
    ]  # fmt: skip
    rows = [("a", "1"), ("bb", "22")]
    assert _terminal.table(rows, right=frozenset({1})) == "a    1\nbb  22"
    assert _terminal.table([]) == ""
