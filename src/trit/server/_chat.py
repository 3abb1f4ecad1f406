"""/v1/chat/completions: platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from trit.errors import TritError
from trit.runtime._generation_openai import ChatCompletion, CompletionStream, completion
from trit.runtime.constrain import Grammar, json_schema, tool_calls
from trit.runtime.generate import Request
from trit.runtime.model import Model
from trit.server import _prompts
from trit.server._documents import events, refusals
from trit.server._errors import ApiError
from trit.server._requests import ChatRequest, ChosenTool
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
    _prompts.require_template(model)
    tools = _prompts.template_tools(model, body.tools) if with_tools(body) else None
    messages = _prompts.template_messages(body.messages)
    prompt = model.prompt(messages, tools, _prompts.thinking(body.chat_template_kwargs))
    newer = body.max_completion_tokens
    asked = body.max_tokens if newer is None else newer
    param = "max_tokens" if newer is None else "max_completion_tokens"
    request = Request(
        prompt,
        _prompts.settings(model, body),
        _prompts.limit(asked, settings.n_predict, param),
        _prompts.stops(body),
        (body.top_logprobs or 0) if body.logprobs else None,
        _grammar(model, body),
        None if body.reasoning_format == "none" else model.reasoning(prompt),
    )
    return _prompts.choices(request, body.n or 1)


def _grammar(model: Model, body: ChatRequest) -> Grammar | None:
    """What holds the answer to the form that is asked for."""
    form = body.response_format
    schema: dict[str, Any] | None = None
    if form is not None and form.type != "text":
        schema = {"type": "object"} if form.type == "json_object" else form.json_schema.schema_
    functions = _callable(body) if with_tools(body) else {}
    has_to = body.tool_choice not in (None, "none", "auto")
    param = "response_format" if schema is not None else "tools"
    try:
        if functions and (has_to or schema is not None):
            named = isinstance(body.tool_choice, ChosenTool)
            several = body.parallel_tool_calls is not False and not named
            otherwise = None if has_to else schema
            return tool_calls(model.tokenizer, functions, several=several, answer=otherwise)
        return None if schema is None else json_schema(model.tokenizer, schema)
    except TritError as error:
        raise ApiError(400, str(error), param=param) from None


def _callable(body: ChatRequest) -> dict[str, dict[str, Any]]:
    """The parameters of the functions that may be called, by name."""
    nothing: dict[str, Any] = {"properties": {}, "additionalProperties": False}
    functions = {
        one.name: nothing if one.parameters is None else one.parameters
        for one in (tool.function for tool in body.tools or ())
    }
    if not isinstance(body.tool_choice, ChosenTool):
        return functions
    name = body.tool_choice.function.name
    return {name: functions[name]}


def with_tools(body: ChatRequest) -> bool:
    return bool(body.tools) and body.tool_choice != "none"


def _refuse(body: ChatRequest) -> None:
    """What is well-formed and makes no sense."""
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs: true.", param="top_logprobs")
    if body.stream_options is not None and not body.stream:
        raise ApiError(400, "stream_options needs stream: true.", param="stream_options")
    names = [tool.function.name for tool in body.tools or ()]
    if isinstance(body.tool_choice, ChosenTool):
        name = body.tool_choice.function.name
        if name not in names:
            raise ApiError(400, f"tool_choice: no tool is called {name:.64}.", param="tool_choice")
    elif body.tool_choice == "required" and not names:
        raise ApiError(400, "tool_choice: required needs tools.", param="tool_choice")
    elif body.parallel_tool_calls is False and names and body.tool_choice != "required":
        raise ApiError(
            400,
            "parallel_tool_calls: false needs tool_choice: required, or a function.",
            param="parallel_tool_calls",
        )
    if len(set(names)) < len(names):
        raise ApiError(400, "two tools have one name.", param="tools")


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
