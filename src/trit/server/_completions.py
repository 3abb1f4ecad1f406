"""/v1/completions: texts gone on from, without a chat template.

Spec: platform.openai.com/docs/api-reference/completions. Without max_tokens an answer goes on until
the model ends it or the context is full, as llama-server has it, not for 16 tokens.
"""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from trit.runtime._generation_openai import Usage, unique, usage
from trit.runtime.generate import FinishReason, Request, Stats, TokenLogprob
from trit.runtime.model import Model
from trit.runtime.tokenizer import Tokenizer
from trit.server import _prompts
from trit.server._documents import events, refusals
from trit.server._errors import ApiError
from trit.server._requests import CompletionRequest
from trit.server._service import EventStream, Service, Work
from trit.server.settings import Settings


@dataclass(frozen=True)
class TextLogprobs:
    """Natural log probabilities by token; `text_offset` is where each begins in the answer,
    in characters; of one that is split, all tokens are where it begins."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


@dataclass(frozen=True)
class TextChoice:
    """One answer, or the next piece of it."""

    text: str
    index: int
    logprobs: TextLogprobs | None = None
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class TextCompletion:
    """A whole answer, or a piece of one without `usage`."""

    id: str
    created: int
    model: str
    choices: tuple[TextChoice, ...]
    usage: Usage | None = None
    object: Literal["text_completion"] = "text_completion"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: usage that is none is absent."""
        answer = asdict(self)
        if self.usage is None:
            del answer["usage"]
        return answer


def router(service: Service) -> APIRouter:
    """The endpoint."""
    made = APIRouter()

    @made.post(
        "/v1/completions",
        response_model=None,
        responses={**refusals(), 200: events(TextCompletion)},
    )
    async def complete(body: CompletionRequest) -> Response:
        """Go on from texts or token ids, whole or as a stream of events."""

        def prepare(model: Model) -> Sequence[Request]:
            return requests(model, body, service.settings)

        async with AsyncExitStack() as stack:
            work = await stack.enter_async_context(service.answering(body.model, prepare))
            if body.stream:
                return EventStream(_events(work, body), stack.pop_all())
            return JSONResponse(await _whole(work, body))

    return made


def requests(model: Model, body: CompletionRequest, settings: Settings) -> list[Request]:
    """What the model is asked, `n` times for each prompt in turn."""
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream: true.", param="stream_options")
    sampling = _prompts.settings(model, body)
    most = _prompts.limit(body.max_tokens, settings.n_predict, "max_tokens")
    made = []
    for prompt in _prompts.inputs(model, body.prompt):
        request = Request(prompt, sampling, most, _prompts.stops(body), body.logprobs)
        made += _prompts.choices(request, body.n or 1)
    if len(made) > _prompts.MOST_ANSWERS:
        raise ApiError(
            400, f"{len(made)} answers are asked for; at most {_prompts.MOST_ANSWERS}.", param="n"
        )
    return made


async def _whole(work: Work, body: CompletionRequest) -> dict[str, Any]:
    answers = await work.generations()
    chosen = tuple(
        TextChoice(
            answer.text,
            index,
            _Spelling(work.model.tokenizer).logprobs(answer.logprobs) if answer.logprobs else None,
            answer.finish_reason,
        )
        for index, answer in enumerate(answers)
    )
    took = usage([answer.stats for answer in answers], body.n or 1)
    return TextCompletion(unique("cmpl"), int(time.time()), work.name, chosen, took).to_dict()


async def _events(work: Work, body: CompletionRequest) -> AsyncIterator[str]:
    name, created = unique("cmpl"), int(time.time())
    spelling = [_Spelling(work.model.tokenizer) for _ in work.requests]
    stats: dict[int, Stats] = {}

    def event(choices: tuple[TextChoice, ...], took: Usage | None = None) -> str:
        return json.dumps(TextCompletion(name, created, work.name, choices, took).to_dict())

    async for chunk in work.chunks():
        at = chunk.index
        if chunk.text or chunk.logprobs or chunk.finish_reason is not None:
            found = chunk.logprobs
            logprobs = spelling[at].logprobs(found) if found else None
            yield event((TextChoice(chunk.text, at, logprobs, chunk.finish_reason),))
        if chunk.stats is not None:
            stats[at] = chunk.stats
    if body.stream_options is not None and body.stream_options.include_usage:
        yield event((), usage([stats[at] for at in sorted(stats)], body.n or 1))


class _Spelling:
    """Follows the text of one answer, of which a stream may hold back the last words."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._offset = 0

    def logprobs(self, tokens: Iterable[TokenLogprob]) -> TextLogprobs:
        """Of the tokens that come next."""
        made = TextLogprobs([], [], [], [])
        for one in tokens:
            made.tokens.append(one.text)
            made.token_logprobs.append(one.logprob)
            made.top_logprobs.append({self._spelled(token): p for token, p in one.top})
            made.text_offset.append(self._offset)
            if not self._tokenizer.is_control(one.token):  # which adds nothing to the text
                raw = self._tokenizer.token_bytes(one.token)
                self._offset += len(self._decoder.decode(raw))
        return made

    def _spelled(self, token: int) -> str:
        return self._tokenizer.token_bytes(token).decode("utf-8", "replace")
