"""The command's frame: the scan, help, flags, variables, and every error as one line."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

import small_model
from trit import cli
from trit.cli import _commands
from trit.errors import DoesNotFitError, InvalidFileError, TritError, UsageError
from trit.files import gguf

PROBE = '''
from typing import Annotated
import typer
ALIASES = ("try",)
def command(
    text: Annotated[str, typer.Argument()] = "",
    repeat_penalty: Annotated[float, typer.Option("--repeat-penalty")] = 1.0,
    count: Annotated[int, typer.Option("-n", "--max-tokens", "--predict")] = 1,
    color: Annotated[str, typer.Option("--color")] = "auto",
    json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Say what was asked."""
    print(text, repeat_penalty, count, color, json)
'''


def trit(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "trit", *arguments],
        env={**os.environ, **variables}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`probe("text", "-n", "3")`: the exit code of a command made for these tests."""
    (tmp_path / "probe.py").write_text(PROBE)
    (tmp_path / "_private.py").write_text("raise AssertionError('imported')")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "__init__.py").write_text("raise AssertionError('imported')")
    found = _commands.scan(tmp_path)
    assert [(entry.name, entry.help) for entry in found] == [("probe", "Say what was asked.")]
    monkeypatch.setattr(_commands, "scan", lambda: found)
    module: dict[str, object] = {}
    exec(PROBE, module)
    monkeypatch.setattr(_commands, "load", lambda entry: module["command"])
    return lambda *arguments: cli.main(["probe", *arguments])


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> int:
    def run(*_: object) -> int:
        raise error

    monkeypatch.setattr(_commands, "run", run)
    return cli.main(["list"])


def test_help_lists_every_command_in_80_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {entry.name} " in text for entry in _commands.scan())
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert cli.main([]) == 0
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("entry", _commands.scan(), ids=lambda entry: entry.name)
def test_every_command_explains_itself(
    entry: _commands.CommandFile,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert entry.help, f"{entry.module} needs a function `command` with a docstring"
    for name in (entry.name, *entry.aliases):
        assert cli.main([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"Usage: trit {entry.name}")
        assert max(map(len, text.splitlines())) <= 80


def test_help_loads_no_command() -> None:
    script = "import sys; from trit.cli import main; main(['--help']); print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    loaded = set(result.stdout.split())
    assert not loaded & {"typer", "numpy", "rich", "trit.zoo", "trit.cli.pull"}


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("trit ")


def test_old_habits_in_flags(probe: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert probe("a_b", "--repeat_penalty", "1.1", "--max_tokens=7", "--color") == 0
    assert capsys.readouterr().out == "a_b 1.1 7 on False\n"
    assert probe("--color", "off", "-n", "-1", "text") == 0
    assert capsys.readouterr().out == "text 1.0 -1 off False\n"
    assert probe("--color=auto", "--", "--max_tokens") == 0
    assert capsys.readouterr().out == "--max_tokens 1.0 1 auto False\n"
    assert probe("-n3", "--", "-text") == 0
    assert capsys.readouterr().out == "-text 1.0 3 auto False\n"


def test_variables_set_flags(
    probe: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIT_REPEAT_PENALTY", "1.5")
    monkeypatch.setenv("TRIT_MAX_TOKENS", "9")
    monkeypatch.setenv("TRIT_JSON", "1")
    assert probe("-n", "2") == 0
    assert capsys.readouterr().out == " 1.5 2 auto True\n"
    assert probe() == 0
    assert capsys.readouterr().out == " 1.5 9 auto True\n"
    monkeypatch.delenv("TRIT_MAX_TOKENS")
    monkeypatch.setenv("TRIT_PREDICT", "8")  # another name of the flag
    assert probe() == 0
    assert capsys.readouterr().out == " 1.5 8 auto True\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["probe", "--nonsense"], "--nonsense"),
        (["probe", "-n", "many"], "'--max-tokens'"),
        (["probe", "a", "b"], "b"),
        (["probe", "-ngl", "99"], "no such option: -ngl. See 'trit probe --help'"),
        (["probe", "-n", "3", "-hf=a/b"], "no such option: -hf."),
        (["prob"], "no such command: prob. Did you mean probe?"),
        (["--frobnicate"], "no such option: --frobnicate"),
    ],
)
def test_usage_errors_are_one_line_and_2(
    probe: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("trit: error: ") and captured.err.count("\n") == 1
    assert says in captured.err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (TritError("it failed"), 1, "trit: error: it failed"),
        (UsageError("no sense"), 2, "trit: error: no sense"),
        (DoesNotFitError("too big"), 3, "trit: error: too big"),
        (InvalidFileError("m.gguf", "key 'x'", "cut"), 1, "trit: error: m.gguf: key 'x': cut"),
        (KeyboardInterrupt(), 130, "trit: interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out.gguf"),
            3,
            "trit: error: out.gguf: no space left on the disk",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/root/x"),
            1,
            "trit: error: /root/x: Permission denied",
        ),
        (
            MemoryError(),
            3,
            "trit: error: out of memory. Take a smaller model, or a smaller --ctx-size.",
        ),
        (
            ZeroDivisionError("division by zero"),
            1,
            "trit: error: a bug in trit: ZeroDivisionError: division by zero "
            "(TRIT_DEBUG=1 shows where; please report it)",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_every_error_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    monkeypatch.delenv("TRIT_DEBUG", raising=False)
    assert raising(monkeypatch, error) == code
    captured = capsys.readouterr()
    assert captured.err == line + "\n"
    assert captured.out == ""


def test_debug_shows_the_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRIT_DEBUG", "1")
    raising(monkeypatch, ZeroDivisionError())
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"), [(typer.Exit(3), 3), (typer.Abort(), 130), (KeyboardInterrupt(), 130)]
)
def test_a_command_may_leave_early(
    monkeypatch: pytest.MonkeyPatch, probe: Callable[..., int], error: BaseException, code: int
) -> None:
    def leave() -> None:
        raise error

    monkeypatch.setattr(_commands, "load", lambda entry: leave)
    assert probe() == code


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "trit", "list"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 1


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_files_are_no_error(closed: str, tmp_path: Path) -> None:
    """And what is printed does not go into the file that is written."""
    model = small_model.write(tmp_path / "model.gguf", small_model.arrays())
    for number, arguments in enumerate((f"show {model}", f"quantize {model} out.gguf Q8_0")):
        done = subprocess.run(
            ["sh", "-c", f"exec {sys.executable} -m trit {arguments} {closed}"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "bug" not in done.stderr
        assert bool(done.stdout) is not (closed.startswith(">") or " >" in closed), number
    with gguf.open(tmp_path / "out.gguf") as file:
        assert file.metadata["general.file_type"] == 7
    failed = subprocess.run(
        ["sh", "-c", f"exec {sys.executable} -m trit show absent.gguf {closed}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert failed.returncode == 1


@pytest.mark.parametrize(
    "arguments", [["quantize", "m", "o", "Q4_0"], ["verify", "m", "--source", "s"]]
)
def test_more_threads_than_the_core_starts(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*arguments, "--threads", "1025"]) == 2
    monkeypatch.setenv("TRIT_THREADS", "1025")
    assert cli.main(arguments) == 2
    assert capsys.readouterr().err.count("less than or equal to 1024") == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_under_the_answer_is_an_error() -> None:
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "trit", "list"], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 3
    assert result.stderr == "trit: error: no space left on the disk\n"


def test_ctrl_c_ends_a_pull_with_one_line(tmp_path: Path) -> None:
    """A pip that never ends stands for a slow network; it must end with trit."""
    (tmp_path / "pip").mkdir()
    (tmp_path / "pip" / "__init__.py").touch()
    started = tmp_path / "started"
    (tmp_path / "pip" / "__main__.py").write_text(
        f"import os, time; open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-m", "trit", "pull", "smollm2-135m-instruct"],
        env={**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not (started.exists() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "trit: interrupted" and "Traceback" not in said
    with pytest.raises(ProcessLookupError):
        os.kill(int(started.read_text()), 0)
    assert not list((tmp_path / "cache").rglob("*.gguf")) + list(tmp_path.rglob("*wheel-*"))
