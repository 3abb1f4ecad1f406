"""Who gets in: Host, Origin, key, size of the body; and what must never get out."""

from __future__ import annotations

import asyncio
import http.client
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from server import live
from trit.errors import UsageError
from trit.server import _gate, run
from trit.server._metrics import Metrics
from trit.server.settings import Settings, is_loopback

TOKENIZE = {"content": "the"}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return live.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def open_server(path: Path) -> Iterator[str]:
    """Without a key."""
    settings = Settings(body_bytes=10_000, n_predict=7, verbose=True)
    with live.served({"talker": live.opener(path)}, settings) as (address, _):
        yield address


@pytest.fixture(scope="module")
def locked(path: Path) -> Iterator[str]:
    """With two keys."""
    settings = Settings(api_keys=("first", "second"))
    with live.served({"talker": live.opener(path)}, settings) as (address, _):
        yield address


def test_only_this_machine_unless_there_is_a_key() -> None:
    assert Settings().host == "127.0.0.1"
    for host in ("0.0.0.0", "::", "192.168.1.7", "example.org"):
        with pytest.raises(UsageError, match="no key is set"):
            Settings(host=host)
        assert not Settings(host=host, api_keys=("k",)).local
    with pytest.raises(UsageError, match="API key"):
        Settings(api_keys=(" ",))
    assert is_loopback("LOCALHOST.") and is_loopback("127.9.9.9") and is_loopback("::1")
    assert not is_loopback("localhost.example.org") and not is_loopback("127.0.0.1.nip.io")


@pytest.mark.parametrize("host", ["127.0.0.1:80", "localhost", "[::1]:1", "LocalHost:8080"])
def test_hosts_of_this_machine(open_server: str, host: str) -> None:
    assert live.ask(open_server, "/health", headers={"Host": host}).status == 200


@pytest.mark.parametrize(
    "host", ["example.org", "127.0.0.1.example.org", "127.0.0.1@evil", "", "a:b:c", "[::1]evil"]
)
def test_other_hosts(open_server: str, host: str) -> None:
    got = live.ask(open_server, "/health", headers={"Host": host})
    assert (got.status, got.error["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("origin", ["http://localhost:3000", "https://127.0.0.1", "http://[::1]:5"])
def test_pages_of_this_machine_are_let_in(open_server: str, origin: str) -> None:
    got = live.ask(open_server, "/tokenize", TOKENIZE, headers={"Origin": origin})
    assert got.status == 200 and got.headers["access-control-allow-origin"] == origin
    asked = live.ask(
        open_server,
        "/v1/chat/completions",
        method="OPTIONS",
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        },
    )
    assert asked.status == 204 and asked.headers["access-control-allow-origin"] == origin
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert asked.headers["access-control-allow-headers"] == "authorization,content-type"


@pytest.mark.parametrize(
    "origin", ["https://example.org", "null", "http://localhost.example.org", "file://", "\xff"]
)
def test_other_pages_are_refused(open_server: str, origin: str) -> None:
    """Also what a browser sends without asking: it is not enough that no page reads the answer."""
    got = live.ask(open_server, "/tokenize", TOKENIZE, headers={"Origin": origin})
    assert (got.status, got.error["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in got.headers


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://192.168.1.7:8080", 200), ("https://192.168.1.7:8080", 200),
     ("http://192.168.1.7:8081", 403), ("http://example.org", 403)],
)  # fmt: skip
def test_the_own_page_wherever_it_is(path: Path, origin: str, status: int) -> None:
    """Beyond this machine too: the page's requests name the address that they go to."""
    beyond = Settings(host="0.0.0.0", api_keys=("first",))
    headers = {"Host": "192.168.1.7:8080", "Origin": origin, "Authorization": "Bearer first"}
    with live.served({"talker": live.opener(path)}, beyond) as (address, _):
        assert live.ask(address, "/tokenize", TOKENIZE, headers=headers).status == status


def test_keys(locked: str) -> None:
    for given in ({}, {"Authorization": "Bearer third"}, {"Authorization": "Basic first"},
                  {"Authorization": "first"}, {"Authorization": "Bearer \xff"}):  # fmt: skip
        for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
            got = live.ask(locked, path, headers=given)
            assert (got.status, got.error["code"]) == (401, "invalid_api_key")
            assert got.headers["www-authenticate"] == "Bearer"
    for key in ("first", "second"):
        got = live.ask(locked, "/v1/models", headers={"Authorization": f"Bearer {key}"})
        assert got.status == 200
    assert live.ask(locked, "/health").status == 200


def test_a_body_that_is_too_large(open_server: str) -> None:
    large = {"content": "x" * 10_000}
    got = live.ask(open_server, "/tokenize", large)
    assert (got.status, got.error["code"]) == (413, "request_too_large")
    assert "10000 bytes" in got.error["message"]


def test_a_body_that_does_not_say_how_large_it_is(open_server: str) -> None:
    with _connected(open_server) as connection:
        connection.sendall(
            b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(b"2000\r\n" + b"x" * 0x2000 + b"\r\n" + b"2000\r\n")
        connection.sendall(b"x" * 0x2000 + b"\r\n0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413")


def test_a_body_is_json_whatever_it_is_called(open_server: str) -> None:
    """`curl -d` says that it sends a form."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert live.ask(open_server, "/tokenize", TOKENIZE, headers=form).status == 200
    assert live.ask(open_server, "/tokenize", TOKENIZE).status == 200


def test_more_tokens_than_the_server_gives(open_server: str) -> None:
    chat = {"messages": [{"role": "user", "content": "x"}], "logit_bias": live.ENDLESS}
    path = "/v1/chat/completions"
    got = live.ask(open_server, path, {**chat, "max_tokens": 8})
    assert (got.status, got.error["param"]) == (400, "max_tokens")
    assert live.ask(open_server, path, chat).json["usage"]["completion_tokens"] == 7


def test_heads_that_never_end(open_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection is closed if nothing comes, and if too little comes."""
    monkeypatch.setattr(run, "HEADER_SECONDS", 0.3)
    begun = time.monotonic()
    with _connected(open_server) as silent, _connected(open_server) as slow:
        slow.sendall(b"GET /health HTTP/1.1\r\n")
        with pytest.raises(OSError):
            while time.monotonic() < begun + 30:
                slow.sendall(b"X: y\r\n")
                time.sleep(0.02)
        assert silent.recv(10) == b""
    assert 0.25 < time.monotonic() - begun < 30


def test_who_reads_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that cannot be sent ends with its time, and so does the word that it has ended."""
    monkeypatch.setattr(_gate, "_FAREWELL_SECONDS", 0.01)
    aborted, metrics = [], Metrics()

    async def stuck(message: Any) -> None:
        if message["type"] != "http.response.start":
            await asyncio.Event().wait()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: {}", "more_body": True})

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": [(b"host", b"localhost")],
             "state": {"abort": lambda: aborted.append(True)}}  # fmt: skip
    asyncio.run(_gate.Gate(app, Settings(timeout=0.01), metrics)(scope, receive, stuck))
    assert aborted == [True]
    assert 'trit_requests_total{path="other",status="200"} 1' in metrics.text({})


def test_a_dropped_connection_is_gone(open_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def stuck(*arguments: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(_gate, "_FAREWELL_SECONDS", 0.01)
    monkeypatch.setattr(_gate._Visit, "_say", stuck)
    with pytest.raises((http.client.HTTPException, OSError)):
        live.ask(open_server, "/nowhere", headers={"Host": "example.org"})


def test_texts_are_never_logged(
    open_server: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in the line of a request, and not where something fails."""
    caplog.set_level(logging.DEBUG)
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "s3cret"}], "max_tokens": 2}
    assert live.ask(open_server, "/v1/chat/completions", chat).status == 200

    secret = "".join(("s3", "cret"))  # a line of code that fails is logged

    def fail(*arguments: object) -> None:
        raise RuntimeError(secret)

    monkeypatch.setattr("trit.server._prompts.template_messages", fail)
    got = live.ask(open_server, "/v1/chat/completions", chat)
    assert got.status == 500 and got.error["type"] == "server_error"
    live.ask(open_server, "/%0anew%1bline?s3cret")
    live.until(lambda: r"/\nnew\x1bline 404" in caplog.text)
    assert "POST /v1/chat/completions 500" in caplog.text and "RuntimeError" in caplog.text
    assert "s3cret" not in caplog.text and "s3cret" not in got.body


def _connected(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=60)
