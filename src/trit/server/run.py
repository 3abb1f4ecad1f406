"""Runs the application: socket, time limits of connections, what Ctrl-C and SIGTERM do."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from trit.compare import Asking, Voting
from trit.errors import TritError, UsageError
from trit.runtime.model import Model
from trit.server._shelf import UnloadableError
from trit.server.app import create_app, create_study_app
from trit.server.settings import HEADER_SECONDS, Settings

GRACE_SECONDS = 3  # for answers that are under way when the server is told to stop
OnReady = Callable[[str], None]


def serve(
    models: Mapping[str, Callable[[], Model]],
    settings: Settings,
    on_ready: OnReady,
    paths: Mapping[str, Path] | None = None,
) -> None:
    """Serve until the process is told to stop; called in the main thread.

    models    what opens a model, by name; the first is opened while the server already listens
    on_ready  told the address once connections are taken
    paths     where the models lie, for their cards
    Errors: KeyboardInterrupt for Ctrl-C, UsageError for an address that cannot be listened on, and
    those of opening the first model.
    """
    failures: list[BaseException] = []
    with _listen(settings.host, settings.port) as listener:

        def stop(error: BaseException) -> None:
            failures.append(error)
            server.should_exit = True

        server = _server(create_app(models, settings, stop, paths))
        _run(server, listener, on_ready)
    for error in failures:
        raise error.cause if isinstance(error, UnloadableError) else error


def serve_study(
    voting: Voting, settings: Settings, on_ready: OnReady, asking: Asking | None = None
) -> None:
    """Serve a blind test in the same way. `asking`: answers prompts of voters' own; None: none."""
    with _listen(settings.host, settings.port) as listener:
        _run(_server(create_study_app(voting, settings, asking)), listener, on_ready)


def _server(app: FastAPI) -> uvicorn.Server:
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=int(HEADER_SECONDS),
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return uvicorn.Server(config)


def _run(server: uvicorn.Server, listener: socket.socket, on_ready: OnReady) -> None:
    on_ready(_address(listener))
    # Uvicorn raises the signals that it caught once more when it has shut down.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server.run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, before)


class Connection(H11Protocol):
    """A connection; closed where a request's head does not come within HEADER_SECONDS, also if it
    comes a byte at a time, which uvicorn would wait for without end."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.access_log = False  # the gate's line has no query
        # What ASGI has no word for: to drop a connection with all that is unsent.
        self.app_state = {**self.app_state, "abort": transport.abort}
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget()

    def _watch(self) -> None:
        """Let the time run where a head is waited for."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget()
        elif self._late is None and not self.transport.is_closing():
            self._late = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket. UsageError where there is none to be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise UsageError(
            f"--host {host}: {error.strerror}. Name an address of this machine."
        ) from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise TritError(
                f"port {port} of {host} is in use, perhaps by another 'trit serve'. Stop that, or "
                "choose another one: --port N (0: any that is free)."
            ) from None
        raise UsageError(
            f"--host {host} --port {port}: {error.strerror}. Choose another one."
        ) from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
