"""What is behind the endpoints: models, queue and driver, and the way of a request through them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from trit.runtime.generate import Chunk, Generation, Request, join
from trit.runtime.model import Model
from trit.server._driver import Driver, Job
from trit.server._errors import ApiError, translated
from trit.server._metrics import Metrics
from trit.server._queue import Queue
from trit.server._shelf import Open, Shelf
from trit.server.settings import Settings

Prepare = Callable[[Model], Sequence[Request]]


@dataclass(frozen=True)
class Work:
    """A request that has its turn: `model` by `name`, and the job that answers `requests`."""

    name: str
    model: Model
    requests: Sequence[Request]
    job: Job
    metrics: Metrics

    async def chunks(self) -> AsyncIterator[Chunk]:
        """As the job has them; answers that end are counted."""
        async for chunk in self.job.chunks():
            if chunk.stats is not None:
                self.metrics.count_answer(chunk.stats)
            yield chunk

    async def generations(self) -> list[Generation]:
        """The whole answers, one for each request."""
        chunks: list[list[Chunk]] = [[] for _ in self.requests]
        async for chunk in self.chunks():
            chunks[chunk.index].append(chunk)
        return [join(*pair) for pair in zip(chunks, self.requests, strict=True)]


class Service:
    """One server's. Between `open` and `close` it answers. `paths`: where the models lie."""

    def __init__(
        self, models: dict[str, Open], settings: Settings, paths: Mapping[str, Path]
    ) -> None:
        self.settings, self.paths = settings, paths
        self.shelf = Shelf(models, settings.sleep_idle_seconds, lambda work: self.driver.call(work))
        self.queue = Queue(settings.parallel, settings.queue)
        self.metrics = Metrics()
        self._driver: Driver | None = None
        self._idle: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Called in the event loop."""
        self._driver = Driver()
        self._idle = asyncio.create_task(self.shelf.put_away_idle())

    async def close(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        await self.shelf.close()
        if self._driver is not None:
            await asyncio.to_thread(self._driver.close)

    @property
    def driver(self) -> Driver:
        assert self._driver is not None, "the service is not open"
        return self._driver

    @asynccontextmanager
    async def answering(self, name: str | None, prepare: Prepare) -> AsyncIterator[Work]:
        """Wait for a turn, and let the model write until the context is left.

        `prepare` makes the model's requests from a body, in a thread and with a slot: no more are
        prepared at a time than are answered. ApiError for what is refused.
        """
        begun = time.perf_counter()
        with self.queue.place() as place:
            async with self.shelf.use(name) as (found, model):
                await place.turn()
                job: Job = await in_thread(lambda: Job(model, prepare(model), begun, place.leave))
                self.driver.start(job)
                try:
                    yield Work(found, model, job.requests, job, self.metrics)
                finally:
                    job.cancel()


async def in_thread(work: Callable[[], Any]) -> Any:
    """What `work` returns, which may take a while; the runtime's refusals as ApiError."""
    try:
        return await asyncio.to_thread(work)
    except ApiError:
        raise
    except Exception as error:
        refusal = translated(error)
        if refusal is None:
            raise
        raise refusal from None


class EventStream(Response):
    """Server-sent events, and `[DONE]` after the last; `stack` is closed when all is over."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], stack: AsyncExitStack) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._stack = events, stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            headers = self.raw_headers
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async for event in self._events:
                await _send(send, event, more=True)
            await _send(send, "[DONE]", more=False)


async def _send(send: Send, data: str, *, more: bool) -> None:
    body = f"data: {data}\n\n".encode()
    await send({"type": "http.response.body", "body": body, "more_body": more})
