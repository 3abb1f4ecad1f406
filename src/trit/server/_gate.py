"""Who gets in, and in which shape all leaves: an ASGI layer around the application.

Host     on a loopback address it has to be a loopback name, so that no page of the web can reach
         the server under a name of its own (DNS rebinding); elsewhere the key stands for it
Origin   the server's own page and pages of this machine are let in, with CORS; a request of any
         other page is refused, also one that its browser would send without asking and not let it
         read
key      compared in constant time
body     bounded in bytes and in time
time     a request that takes too long ends with an error; where its client reads nothing, not even
         that, with the connection
a client that goes away cancels its request: CancelledError in whatever it waits for

Whatever goes wrong inside becomes an error of OpenAI's shape. Nothing of a request but its method,
path, status and time is ever logged.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import re
import time
import traceback
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from trit.server._errors import ApiError, internal, of_status, translated, unavailable
from trit.server._metrics import Metrics
from trit.server.settings import BODY_SECONDS, Settings, is_loopback

log = logging.getLogger("trit.server")
_OPEN_PATHS = ("/health", "/")  # without a key; the page holds no secret, and asks for the key
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]*)?")
_FAREWELL_SECONDS = 5.0  # for a client to take in why its request has ended
_TOO_LARGE = "The body has more than {} bytes, which is the most that this server takes."


class Gate:
    """The layer; one for all requests."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app, self._settings, self._metrics = app, settings, metrics
        self._keys = [_digest(key.encode()) for key in settings.api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        begun, verb = time.monotonic(), scope["method"]
        visit = _Visit(scope, receive, send, self._settings.body_bytes)
        try:
            try:
                await self._let_in(scope, visit)
            except ApiError as error:
                await visit.refuse(error)
        except asyncio.CancelledError:
            if not visit.gone:  # then it is the server that stops, and waits for nothing more
                await visit.refuse(unavailable("The server is being stopped."))
        except Exception as error:
            refusal = translated(error)
            if refusal is None:
                # Not the message of an error, which may hold a text of the request.
                frames = "".join(traceback.format_tb(error.__traceback__))
                log.error("%s %s: %s\n%s", verb, _path(scope), type(error).__name__, frames)
            await visit.refuse(refusal or internal())
        finally:
            visit.end()
            self._note(scope, visit, time.monotonic() - begun)

    async def _let_in(self, scope: Scope, visit: _Visit) -> None:
        headers = _headers(scope)
        self._check_host(headers.get(b"host", b""))
        origin = headers.get(b"origin")
        if origin is not None:
            _check_origin(origin, headers.get(b"host", b""))
            visit.origin = origin
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                return await visit.allow(headers.get(b"access-control-request-headers", b""))
        if scope["path"] not in _OPEN_PATHS:
            self._check_key(headers)
        length = headers.get(b"content-length", b"0")
        if int(length) > self._settings.body_bytes:
            most = self._settings.body_bytes
            raise of_status(413, _TOO_LARGE.format(most))
        try:
            async with asyncio.timeout(self._settings.timeout):
                await self._app(_as_json(scope), visit.receive, visit.send)
        except TimeoutError:
            raise unavailable(
                f"No answer within {self._settings.timeout:g} s, the limit of this server."
            ) from None

    def _check_host(self, host: bytes) -> None:
        match = _HOST.fullmatch(host.decode("latin-1"))
        if match is None or (self._settings.local and not is_loopback(match[1] or match[2])):
            raise ApiError(
                403,
                "The Host header names another machine than this one; use 127.0.0.1 or localhost.",
                code="host_not_allowed",
            )

    def _check_key(self, headers: dict[bytes, bytes]) -> None:
        if not self._keys:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        found = _digest(given.strip() if scheme.lower() == b"bearer" else b"")
        if not any([hmac.compare_digest(found, key) for key in self._keys]):  # all are compared
            raise ApiError(
                401,
                "No valid API key: send the header 'Authorization: Bearer KEY'.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    def _note(self, scope: Scope, visit: _Visit, seconds: float) -> None:
        route = scope.get("route")
        name = getattr(route, "path", "other")
        status = visit.status or 499  # nginx's number for a client that did not wait
        self._metrics.count_request(name, status)
        if self._settings.verbose:
            log.info("%s %s %d %.3f s", scope["method"], _path(scope), status, seconds)


class _Visit:
    """One request on its way in and out.

    status  what was answered, 0: nothing
    gone    the client left, and the request was cancelled for it
    origin  the page that asks, if it is one that may
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        self._scope, self._receive, self._send, self._most = scope, receive, send, most
        self._task = asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None
        self._read = 0
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS
        self._events = self._whole = False
        self.status = 0
        self.gone = False
        self.origin: bytes | None = None

    async def receive(self) -> Message:
        """The body, within its limits; once all of it is here, the client is watched."""
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"The body took more than {BODY_SECONDS:g} s.") from None
        self._read += len(message.get("body", b""))
        if self._read > self._most:
            raise HTTPException(413, _TOO_LARGE.format(self._most))
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._watch = asyncio.create_task(self._wait_for_departure())
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            self.status = message["status"]
            self._events = (b"content-type", b"text/event-stream; charset=utf-8") in headers
            if self.origin is not None:
                headers += [(b"access-control-allow-origin", self.origin), (b"vary", b"origin")]
            message = {**message, "headers": headers}
        elif not message.get("more_body", False):
            self._whole = True
        await self._send(message)

    async def allow(self, headers: bytes) -> None:
        """Answer the question of a browser that comes before a request."""
        answer = [
            (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
            (b"access-control-allow-headers", headers or b"authorization, content-type"),
            (b"access-control-max-age", b"600"),
        ]
        await self.send({"type": "http.response.start", "status": 204, "headers": answer})
        await self.send({"type": "http.response.body", "body": b""})

    async def refuse(self, error: ApiError) -> None:
        """Answer with an error; within a stream of events as its last one. A client that does not
        read has been waited for long enough: its connection is given up."""
        try:
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._say(error)
        except TimeoutError:
            self._whole = True
            abort = self._scope.get("state", {}).get("abort")  # see run.Connection
            if abort is not None:
                abort()

    async def _say(self, error: ApiError) -> None:
        if not self.status:
            await error.response()(self._scope, self._receive, self.send)
        elif self._events and not self._whole:
            event = f"data: {json.dumps(error.body)}\n\n".encode()
            await self.send({"type": "http.response.body", "body": event, "more_body": False})

    def end(self) -> None:
        if self._watch is not None:
            self._watch.cancel()

    async def _wait_for_departure(self) -> None:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._whole and self._task is not None:
            self.gone = True
            self._task.cancel()


def _check_origin(origin: bytes, host: bytes) -> None:
    try:
        parts = urlsplit(origin.decode("ascii"))
        own = parts.netloc == host.decode("ascii")
        allowed = parts.scheme in ("http", "https") and (own or is_loopback(parts.hostname or ""))
    except ValueError:
        allowed = False
    if not allowed:
        raise ApiError(
            403,
            "Pages of other origins than this server and this machine are refused.",
            code="origin_not_allowed",
        )


def _headers(scope: Scope) -> dict[bytes, bytes]:
    pairs: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return dict(pairs)


def _as_json(scope: Scope) -> Scope:
    """The scope with bodies declared as what they have to be: `curl -d` calls them a form. (That a
    browser sends forms for any page unasked is no danger: Origin was checked.)"""
    others = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    scope["headers"] = [*others, (b"content-type", b"application/json")]
    return scope


def _digest(key: bytes) -> bytes:
    """Of one length for all, so that no comparison tells a key's."""
    return hashlib.sha256(key).digest()


def _path(scope: Scope) -> str:
    return ascii(scope["path"])[1:-1][:100]
