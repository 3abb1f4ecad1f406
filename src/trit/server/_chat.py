"""/v1/chat/completions: platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from trit.errors import TritError
from trit.runtime._generation_openai import ChatCompletion, CompletionStream, completion
from trit.runtime.constrain import Grammar, json_schema
from trit.runtime.generate import Request
from trit.runtime.model import Model
from trit.server import _prompts
from trit.server._documents import events, refusals
from trit.server._errors import ApiError
from trit.server._requests import ChatRequest, ResponseFormat
from trit.server._service import EventStream, Service, Work
from trit.server.settings import Settings


def router(service: Service) -> APIRouter:
    """The endpoint."""
    made = APIRouter()

    @made.post(
        "/v1/chat/completions",
        response_model=None,
        responses={**refusals(), 200: events(ChatCompletion)},
    )
    async def chat(body: ChatRequest) -> Response:
        """Answer a conversation, whole or as a stream of events."""

        def prepare(model: Model) -> Sequence[Request]:
            return requests(model, body, service.settings)

        async with AsyncExitStack() as stack:
            work = await stack.enter_async_context(service.answering(body.model, prepare))
            if body.stream:
                return EventStream(_events(work, body), stack.pop_all())
            answers = await work.generations()
            made = completion(work.name, answers, work.model.tokenizer, tools=with_tools(body))
            return JSONResponse(made.to_dict())

    return made


def requests(model: Model, body: ChatRequest, settings: Settings) -> list[Request]:
    """What the model is asked, once for each choice."""
    _refuse(body)
    tools = _prompts.template_tools(model, body.tools) if with_tools(body) else None
    prompt = model.prompt(_prompts.template_messages(body.messages), tools)
    newer = body.max_completion_tokens
    asked = body.max_tokens if newer is None else newer
    param = "max_tokens" if newer is None else "max_completion_tokens"
    request = Request(
        prompt,
        _prompts.settings(model, body),
        _prompts.limit(asked, settings.n_predict, param),
        _prompts.stops(body),
        (body.top_logprobs or 0) if body.logprobs else None,
        _grammar(model, body.response_format),
    )
    return _prompts.choices(request, body.n or 1)


def _grammar(model: Model, form: ResponseFormat | None) -> Grammar | None:
    if form is None or form.type == "text":
        return None
    schema = {"type": "object"} if form.type == "json_object" else form.json_schema.schema_
    try:
        return json_schema(model.tokenizer, schema)
    except TritError as error:
        raise ApiError(400, str(error), param="response_format") from None


def with_tools(body: ChatRequest) -> bool:
    return bool(body.tools) and body.tool_choice != "none"


def _refuse(body: ChatRequest) -> None:
    """What is well-formed and makes no sense."""
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true.", param="top_logprobs")
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream: true.", param="stream_options")
    if (
        with_tools(body)
        and body.response_format is not None
        and body.response_format.type != "text"
    ):
        raise ApiError(
            400, "response_format and tools exclude each other here.", param="response_format"
        )


async def _events(work: Work, body: ChatRequest) -> AsyncIterator[str]:
    """The chunks as JSON: the roles, what each token adds, usage if it is wanted."""
    count = len(work.requests)
    stream = CompletionStream(work.name, work.model.tokenizer, count, tools=with_tools(body))
    for chunk in stream.begin():
        yield json.dumps(chunk.to_dict())
    async for token in work.chunks():
        for chunk in stream.push(token):
            yield json.dumps(chunk.to_dict())
    if body.stream_options is not None and body.stream_options.include_usage:
        yield json.dumps(stream.usage().to_dict())
