"""The models of a server: loaded when they are asked for, put away when they are idle."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from trit.errors import TritError
from trit.runtime.model import Model
from trit.server._errors import ApiError, unavailable

Open = Callable[[], Model]
BetweenSteps = Callable[[Callable[[], None]], Awaitable[None]]
LOADER = "trit-loader"  # the name of threads
_LOOK_SECONDS = 1.0  # how often idle models are looked for, at most


@dataclass
class Entry:
    """A model by its name: `users` requests have it in use, `used_at` is when the last one ended,
    by time.monotonic."""

    name: str
    open: Open
    created: int = field(default_factory=lambda: int(time.time()))
    state: Literal["unloaded", "loading", "loaded"] = "unloaded"
    model: Model | None = None
    users: int = 0
    used_at: float = 0.0
    loading: asyncio.Task[Model] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Shelf:
    """Models by name. For one event loop."""

    def __init__(
        self, models: Mapping[str, Open], idle_seconds: float | None, between_steps: BetweenSteps
    ) -> None:
        """`between_steps` runs what no step of a model may be under way for: closing one, whose
        last client may have left in the middle of a long step."""
        assert models
        self._between_steps = between_steps
        self.entries = {name: Entry(name, open) for name, open in models.items()}
        self.started = False  # whether the first model has been loaded
        self._idle_seconds = idle_seconds

    async def start(self) -> None:
        """Load the first model; the others wait until they are asked for."""
        await self._load(next(iter(self.entries.values())))
        self.started = True

    def entry(self, name: str | None) -> Entry:
        """The model of a request; ApiError 404 for a name that is none, 503 before the start."""
        if name is None:
            if len(self.entries) > 1:
                raise ApiError(400, f"Name a model: {', '.join(self.entries)}.", param="model")
        elif name not in self.entries:
            raise ApiError(
                404,
                f"There is no model {name[:100]!r} here; there is {', '.join(self.entries)}.",
                param="model",
                code="model_not_found",
            )
        if not self.started:
            raise unavailable("The model is being loaded.")
        return next(iter(self.entries.values())) if name is None else self.entries[name]

    @asynccontextmanager
    async def use(self, name: str | None) -> AsyncIterator[tuple[str, Model]]:
        """The model of a request and its name, loaded, and kept so for the while."""
        entry = self.entry(name)
        entry.users += 1
        try:
            yield entry.name, await self._load(entry)
        finally:
            entry.users -= 1
            entry.used_at = time.monotonic()

    async def put_away_idle(self) -> None:
        """Unload what is idle, for ever; returns at once where nothing ever is."""
        while self._idle_seconds is not None:
            await asyncio.sleep(min(_LOOK_SECONDS, self._idle_seconds / 2))
            late = time.monotonic() - self._idle_seconds
            for entry in self.entries.values():
                if entry.state == "loaded" and not entry.users and entry.used_at < late:
                    await self._unload(entry)

    async def close(self) -> None:
        """Unload all; what is being loaded is not waited for."""
        for entry in self.entries.values():
            await self._unload(entry)

    async def _load(self, entry: Entry) -> Model:
        """The model; whoever asks first has it loaded, and it is, even if nobody waits any more."""
        async with entry.lock:
            if entry.model is not None:
                return entry.model
            if entry.loading is None:
                entry.loading = asyncio.create_task(self._open(entry))
            loading = entry.loading
        return await asyncio.shield(loading)

    async def _open(self, entry: Entry) -> Model:
        entry.state = "loading"
        try:
            entry.model = await _in_own_thread(entry.open)
        except TritError as error:
            raise UnloadableError(entry.name, error) from error
        finally:
            entry.state = "unloaded" if entry.model is None else "loaded"
            entry.used_at = time.monotonic()
            entry.loading = None
        return entry.model

    async def _unload(self, entry: Entry) -> None:
        async with entry.lock:
            if entry.model is not None and not entry.users:
                model, entry.model, entry.state = entry.model, None, "unloaded"
                await self._between_steps(model.close)


async def _in_own_thread(work: Open) -> Model:
    """What `work` returns, in a thread that nobody has to wait for when the server is stopped."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Model] = loop.create_future()

    def settle(model: Model | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if model is not None:
            done.set_result(model)
        else:
            done.set_exception(error or RuntimeError("no model"))

    def run() -> None:
        try:
            result: tuple[Model | None, BaseException | None] = work(), None
        except BaseException as error:
            result = None, error
        with suppress(RuntimeError):  # the loop is closed: the server was stopped
            loop.call_soon_threadsafe(settle, *result)

    threading.Thread(target=run, name=LOADER, daemon=True).start()
    return await done


def is_loading() -> bool:
    """Whether a model of this process is in the middle of being loaded."""
    return any(thread.name == LOADER for thread in threading.enumerate())


class UnloadableError(ApiError):
    """A model that was there when the server began; `cause` says what is wrong with it now."""

    def __init__(self, name: str, cause: TritError) -> None:
        super().__init__(500, f"{name} cannot be loaded: {cause}", kind="server_error")
        self.cause = cause
