"""A server in a thread, for tests: a talking model, or what else they give it."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI

import talking_model
from trit.runtime.model import Model, load
from trit.server.app import create_app
from trit.server.run import Connection
from trit.server.settings import Settings

ENDLESS = {str(token): -100 for token in (talking_model.EOS, talking_model.END)}
CONTEXT = 1 << 14


def write(folder: Path) -> Path:
    """A model that talks as long as it is let."""
    keys = {"llama.context_length": CONTEXT}
    return talking_model.write(folder / "talking.gguf", keys)


def opener(path: Path, parallel: int = 8, ctx: int = 2048) -> Callable[[], Model]:
    return lambda: load(path, ctx, threads=1, parallel=parallel)


@contextmanager
def served(
    models: Mapping[str, Callable[[], Model]],
    settings: Settings | None = None,
    *,
    wait: bool = True,
    paths: Mapping[str, Path] | None = None,
) -> Iterator[tuple[str, FastAPI]]:
    """The address of a server with these models, the first of them loaded where one waits for it,
    and its application."""
    app = create_app(models, settings or Settings(), paths=paths)
    config = uvicorn.Config(app, port=0, http=Connection, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        address = f"127.0.0.1:{port}"
        if wait:
            until(lambda: ask(address, "/health").status == 200)
        yield address, app
    finally:
        server.should_exit = True
        thread.join()


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@dataclass(frozen=True)
class Answer:
    """What came back; `json` of a body that is none is None."""

    status: int
    headers: Mapping[str, str]
    body: str

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, if it has OpenAI's shape."""
        error: dict[str, Any] = self.json["error"]
        assert set(error) >= {"message", "type", "param", "code"} and list(self.json) == ["error"]
        assert isinstance(error["message"], str) and isinstance(error["type"], str)
        return error


def ask(
    address: str,
    path: str,
    body: object = None,
    *,
    method: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """One request over a connection of its own; a body that is no bytes is sent as JSON."""
    connection = http.client.HTTPConnection(address, timeout=120)
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    try:
        verb = method or ("GET" if body is None else "POST")
        connection.request(verb, path, body, dict(headers or {}))  # type: ignore[arg-type]
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read().decode())
    finally:
        connection.close()
