"""/compare/prompts: prompts of a voter's own. The request lasts until the answers are made.

Who goes away cancels it. One prompt is answered at a time, others wait in line. What fails is the
affair of who runs the study, for it may name a model: the voter learns that, the log learns what.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import ExitStack
from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, StringConstraints

from trit.compare import Asking
from trit.compare.asking import MOST_LETTERS, Asked
from trit.errors import TemplateError, TritError, UsageError
from trit.server._documents import refusals
from trit.server._errors import ApiError
from trit.server._queue import Queue
from trit.server._service import in_thread
from trit.server._votes import STRICT, VoterName

log = logging.getLogger("trit.server")
_BUSY = "your last prompt is being answered; wait for it, or cancel it."
_FAILED = (
    "The models of this study could not answer. Your prompt is not kept; who runs the study sees "
    "in its log why."
)


class Prompt(BaseModel):
    """Something that a voter asks; the models' sampling and seeds are the study's."""

    model_config = STRICT
    voter: VoterName
    prompt: Annotated[str, StringConstraints(min_length=1, max_length=MOST_LETTERS)]


class Answered(BaseModel):
    """The answers are kept, and come next. `same`: all wrote the same, there is nothing to vote on.
    `left`: prompts that this voter may still ask."""

    same: bool
    left: int


def router(asking: Asking, length: int) -> APIRouter:
    """The endpoint. `length`: voters that may wait for their turn."""
    made = APIRouter(prefix="/compare", responses=refusals())
    busy: set[str] = set()
    queue = Queue(1, length)

    @made.post("/prompts")
    async def ask(body: Prompt) -> Answered:
        """Have the models answer a prompt of the voter's own; only this voter is shown them."""
        if body.voter in busy:
            raise UsageError(_BUSY)
        busy.add(body.voter)
        try:
            await in_thread(lambda: asking.checked(body.voter, body.prompt))
            found = await _answered(asking, queue, body)
        finally:
            busy.remove(body.voter)
        return Answered(same=found.same, left=found.left)

    return made


async def _answered(asking: Asking, queue: Queue, body: Prompt) -> Asked:
    cancelled = threading.Event()
    with ExitStack() as stack:
        place = stack.enter_context(queue.place())
        await place.turn()
        work = asyncio.create_task(
            asyncio.to_thread(asking.ask, body.voter, body.prompt, cancelled)
        )
        held = stack.pop_all()
        work.add_done_callback(lambda _: held.close())  # a cancelled thread has to end first
    try:
        found = await asyncio.shield(work)
    except asyncio.CancelledError:
        cancelled.set()
        work.add_done_callback(lambda done: done.exception())  # nobody else asks for it
        raise
    except UsageError:
        raise
    except Exception as error:
        _note(error)
        raise ApiError(500, _FAILED, kind="server_error") from None
    assert found is not None, "it was not cancelled"
    return found


def _note(error: Exception) -> None:
    """In the log; of errors that may hold a text of the prompt, the kind alone."""
    told = isinstance(error, TritError) and not isinstance(error, TemplateError)
    log.error("a voter's prompt was not answered: %s", error if told else type(error).__name__)
