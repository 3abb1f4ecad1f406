"""`trit completion`: what a real shell offers."""

import shutil
import subprocess

import pytest

from trit.cli import _commands, main
from trit.cli.completion import SHELLS, script


def offered(*words: str) -> set[str]:
    """What bash would complete the last word to."""
    typed = " ".join(f"'{word}'" for word in ("trit", *words))
    ask = f"COMP_WORDS=({typed}); COMP_CWORD={len(words)}; _trit; "
    ask += "printf '%s\\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(
        ["bash", "-c", script("bash") + ask], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash() -> None:
    assert offered("qu") == {"quantize"}
    assert offered("") == {entry.name for entry in _commands.scan()}
    assert offered("estimate", "--ca") == {"--cache-type", "--cache-type-k", "--cache-type-v"}
    assert "--measure" in offered("recommend", "--") and "--type" not in offered("recommend", "--")
    assert offered("run", "smol") == {"smollm2-135m-instruct"}
    assert offered("ls", "--j") == {"--json"}  # an alias


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_is_there(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert all(entry.name in out for entry in _commands.scan())
    found = shutil.which(shell)
    if found is not None:
        done = subprocess.run([found, "-n"], input=out, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_another_shell(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err
