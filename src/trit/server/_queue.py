"""Slots for requests, and a bounded line in front of them, first come, first served."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager

from trit.server._errors import unavailable


class Queue:
    """`slots` requests run at the same time, `length` more wait. For one event loop."""

    def __init__(self, slots: int, length: int) -> None:
        self._free = asyncio.Semaphore(slots)
        self._length = length
        self.running = self.waiting = 0

    def require_room(self) -> None:
        """ApiError 503 if a request that comes now could not even wait."""
        if self._free.locked() and self.waiting >= self._length:
            raise unavailable(
                f"{self.running} requests are answered and {self.waiting} wait: the queue is full."
            )

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[Callable[[], None]]:
        """Wait for a slot and hold it until the context is left, or what it yields is called.

        ApiError 503 at once if the queue is full.
        """
        self.require_room()
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        with ExitStack() as held:
            held.callback(self._release)
            yield held.close

    def _release(self) -> None:
        self.running -= 1
        self._free.release()
