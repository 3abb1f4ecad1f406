"""`trit serve` and `trit ps` as processes: from start to Ctrl-C, and every way not to start."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

import talking_model
from server import live
from trit import cli

TRIT = [sys.executable, "-m", "trit"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return talking_model.write(tmp_path_factory.mktemp("models") / "talker.gguf")


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, once it listens, and its address."""
    command = [*TRIT, "serve", *arguments, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        found = next(m for line in lines if (m := re.search(r"listening on http://(\S+),", line)))
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_while_an_answer_is_written(tmp_path: Path) -> None:
    """It is waited for a little, and then ended with an error of the usual shape."""
    model = live.write(tmp_path)
    with serving(str(model), "-c", "0", "-t", "1") as (process, address):
        live.until(lambda: live.ask(address, "/health").status == 200)
        chat = {"messages": [{"role": "user", "content": "x"}], "logit_bias": live.ENDLESS}
        connection = HTTPConnection(address, timeout=120)
        connection.request("POST", "/v1/chat/completions", json.dumps({**chat, "stream": True}))
        response = connection.getresponse()
        assert response.read(100)
        assert live.ask(address, "/v1/models").json["data"][0]["id"] == "talking"
        process.send_signal(signal.SIGINT)
        last = json.loads(response.read().rstrip().rpartition(b"data: ")[2])
        assert last["error"]["message"] == "The server is being stopped."
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out) == (130, "") and "Traceback" not in err
        connection.close()


def test_ps_and_sigterm(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(str(path), "--alias", "small", "--api-key", "other,k", "-t", "1") as (
        process,
        address,
    ):
        live.until(lambda: live.ask(address, "/health").status == 200)
        host, _, port = address.rpartition(":")
        where = ["ps", "--host", host, "--port", port]
        assert cli.main([*where, "--api-key", "k"]) == 0
        head, row = capsys.readouterr().out.splitlines()
        assert head.split()[:2] == ["model", "state"] and row.split()[:3] == [
            "small",
            "loaded",
            "256",
        ]
        assert cli.main([*where, "--api-key", "k", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["data"][0]["meta"]["n_ctx"] == 256
        assert cli.main(where) == 1
        assert "401: No valid API key" in capsys.readouterr().err
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0 and "Traceback" not in err
    assert cli.main(where) == 1
    assert "Start one ('trit serve MODEL')" in capsys.readouterr().err


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`refused(*arguments)`: exit code and what stderr says of a server that does not start."""

    def call(*arguments: str) -> tuple[int, str]:
        code = cli.main(["serve", *arguments])
        return code, capsys.readouterr().err

    return call


def test_ways_not_to_start(refused: Callable[..., Any], path: Path, tmp_path: Path) -> None:
    model, empty, broken = str(path), tmp_path / "keys", tmp_path / "broken.gguf"
    empty.write_text("\n")
    broken.write_bytes(path.read_bytes()[:2000])
    for arguments, code, said in (
        ([], 2, "no model"),
        ([model, "--host", "0.0.0.0"], 2, "no key is set"),
        ([model, "--host", "203.0.113.1", "--api-key", "k"], 2, "Choose another one"),
        ([model, "--port", "70000"], 2, "port is 70000"),
        ([model, model], 2, "two models are called talker"),
        ([model, str(broken), "--alias", "a"], 2, "--alias names one model"),
        ([model, "-n", "0"], 2, "-n 0"),
        ([model, "-np", "0"], 2, "parallel is 0"),
        ([model, "--max-body", "much"], 2, "--max-body much"),
        ([model, "--api-key-file", str(empty)], 1, "it has none"),
        ([model, "--api-key", "k,"], 2, "an API key is empty"),
        ([model, "-ngl", "99"], 2, "no such option: -ngl"),
        (["no-such-model"], 1, "no-such-model"),
    ):
        got, err = refused(*arguments)
        assert (got, said in err) == (code, True), err


def test_models_from_the_environment(
    refused: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRIT_MODEL gives way to what was typed."""
    monkeypatch.setenv("TRIT_MODEL", "from-the-environment")
    assert "from-the-environment: no such" in refused()[1]
    assert "typed: no such" in refused("typed")[1]


def test_a_port_in_use(refused: Callable[..., Any], path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, err = refused(str(path), "--port", str(other.getsockname()[1]))
    assert code == 1 and "is in use" in err and "--port N" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_stopped_while_a_model_is_loaded(path: Path, number: int, code: int) -> None:
    """At once, and not when it has been loaded: here that takes an hour."""
    script = (
        "import sys, time, trit.runtime.model as m\n"
        "m.load = lambda *a, **k: time.sleep(3600)\n"
        "from trit import cli\n"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "serve", str(path), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        lines = iter(process.stderr.readline, "")
        found = next(m for line in lines if (m := re.search(r"listening on http://(\S+),", line)))
        assert live.ask(found[1], "/health").status == 503  # by now it hears signals
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert "stopped while a model was being loaded" in err
    finally:
        process.kill()


def test_a_model_that_cannot_be_loaded(path: Path, tmp_path: Path) -> None:
    """Found once the server listens: it ends with the model's own error."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(path.read_bytes()[:2000])
    done = subprocess.run(
        [*TRIT, "serve", str(broken), "--port", "0"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and "trit: error: " in done.stderr and "broken.gguf" in done.stderr
    assert "Traceback" not in done.stderr
