"""Slots for requests, and a bounded line in front of them, first come, first served."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from trit.server._errors import unavailable


class Queue:
    """`slots` requests run at the same time, `length` more wait. For one event loop."""

    def __init__(self, slots: int, length: int) -> None:
        self._free = asyncio.Semaphore(slots)
        self._most = slots + length
        self.running = self.waiting = 0

    @contextmanager
    def place(self) -> Iterator[Place]:
        """A place in the line, and the slot that it becomes, until the context is left.

        ApiError 503 at once if the queue is full.
        """
        if self.running + self.waiting >= self._most:
            raise unavailable(
                f"{self.running} requests are answered and {self.waiting} wait: the queue is full."
            )
        place = Place(self, self._free)
        try:
            yield place
        finally:
            place.leave()


class Place:
    """One request's; it counts as waiting, then as running, then as neither."""

    def __init__(self, queue: Queue, free: asyncio.Semaphore) -> None:
        self._queue, self._free = queue, free
        self._holds = self._left = False
        queue.waiting += 1

    async def turn(self) -> None:
        """Wait for a slot."""
        await self._free.acquire()
        self._holds = True
        self._queue.waiting -= 1
        self._queue.running += 1

    def leave(self) -> None:
        """Give the slot back, or the place in the line; a second time, nothing."""
        if self._left:
            return
        self._left = True
        if self._holds:
            self._queue.running -= 1
            self._free.release()
        else:
            self._queue.waiting -= 1
