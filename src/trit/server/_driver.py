"""The thread that runs the models, and the way of their tokens to the event loop.

One thread for all models: they share the processors, and take steps by turns. It delivers what a
step has chosen with one call into the event loop, for all answers together. Readers are not waited
for: what a slow client has not read yet is text, bounded by its context, and holds no slot.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from typing import Any

from trit.runtime import generate as generation
from trit.runtime.generate import Chunk, Request
from trit.runtime.model import Model
from trit.runtime.scheduler import Scheduler

log = logging.getLogger("trit.server")
_News = list[Chunk | Exception | None]  # None: that was all


class Job:
    """The answers to one request, while they are written. Made in any thread: the tables of a
    long prompt take their time."""

    def __init__(
        self, model: Model, requests: Sequence[Request], begun: float, on_end: Callable[[], None]
    ) -> None:
        """Errors as for `generate.stream`. `begun`: when the request came, on perf_counter.
        `on_end`: told in the event loop when all is written, which may be before all is read."""
        self.on_end, self.requests = on_end, requests
        self.scheduler = model.scheduler
        self.runs = generation.answers(model.scheduler, model.tokenizer, requests, begun)
        self.news: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue()

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Every token of every answer. An error of a run is raised, and ends them all."""
        while (item := await self.news.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def cancel(self) -> None:
        """Let go of the sequences: at once, or with the step that is under way."""
        for run in self.runs:
            if not run.ended:
                self.scheduler.drop(run)

    def collect(self) -> _News:
        """What has come since the last time. For the driver."""
        ended = all(run.ended for run in self.runs)  # before what was chosen last is read
        news: _News = []
        for run in self.runs:
            while run.unread:
                news.append(run.unread.popleft())
        error = next((run.error for run in self.runs if run.error is not None), None)
        if error is not None:
            return [*news, error if isinstance(error, Exception) else RuntimeError(repr(error))]
        return [*news, None] if ended else news


class Driver:
    """Runs the jobs of one event loop."""

    def __init__(self) -> None:
        """Called in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._jobs: list[Job] = []
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="trit-driver", daemon=True)
        self._thread.start()

    def start(self, job: Job) -> None:
        """Let a job take part from the next step on. UsageError for unknown tokens."""
        for run in job.runs:
            job.scheduler.add(run)
        with self._wake:
            self._jobs.append(job)
            self._wake.notify()

    async def call(self, work: Callable[[], Any]) -> Any:
        """What `work` returns, run between two steps; its errors are raised here."""
        return await asyncio.wrap_future(self.call_soon(work))

    def call_soon(self, work: Callable[[], Any]) -> Future[Any]:
        """The same for who does not wait."""
        future: Future[Any] = Future()
        with self._wake:
            self._calls.append((work, future))
            self._wake.notify()
        return future

    def close(self) -> None:
        """End the thread with the step that is under way. No job is left unfinished by then."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._jobs or self._calls or self._closing)
                if self._closing:
                    return
                jobs = list(self._jobs)
                call = self._calls.popleft() if self._calls else None
            if call is not None:
                _perform(*call)
            for scheduler in dict.fromkeys(job.scheduler for job in jobs):
                _step(scheduler, jobs)
            self._deliver(jobs)

    def _deliver(self, jobs: Sequence[Job]) -> None:
        collected = [(job, news) for job in jobs if (news := job.collect())]
        ended = [job for job, news in collected if not isinstance(news[-1], Chunk)]
        for job in ended:
            job.cancel()  # the other runs of one that failed
        with self._wake:
            self._jobs = [job for job in self._jobs if job not in ended]
        if collected:
            self._loop.call_soon_threadsafe(_hand_over, collected)


def _hand_over(collected: Sequence[tuple[Job, _News]]) -> None:
    for job, news in collected:
        for item in news:
            job.news.put_nowait(item)
        if not isinstance(news[-1], Chunk):
            job.on_end()


def _step(scheduler: Scheduler, jobs: Sequence[Job]) -> None:
    """One step; an error of it, a bug of ours, ends the jobs that took part and no others."""
    try:
        scheduler.step()
    except Exception as error:
        log.error("a step failed: %s\n%s", type(error).__name__, "".join(
            traceback.format_tb(error.__traceback__)))  # fmt: skip
        for job in jobs:
            if job.scheduler is scheduler:
                job.cancel()
                for run in job.runs:
                    run.error = run.error or error


def _perform(work: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
