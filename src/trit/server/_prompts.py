"""From a body to what the runtime is asked: messages for the template, settings, requests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from trit.runtime.generate import Request, with_seed
from trit.runtime.model import Model, Prompt
from trit.runtime.sample import SamplerSettings
from trit.server._errors import ApiError
from trit.server._requests import (
    AssistantMessage,
    CalledTool,
    Content,
    Function,
    Message,
    Sampling,
    TemplateSettings,
    Tool,
    ToolMessage,
)

MOST_ANSWERS = 256  # of one request
_SAMPLERS = (
    "temperature", "top_p", "top_k", "min_p", "repeat_penalty", "presence_penalty",
    "frequency_penalty",
)  # fmt: skip


def template_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as chat templates take them: content is text, arguments of calls are objects."""
    return [_template_message(one, f"messages.{at}") for at, one in enumerate(messages)]


def _template_message(message: Message, place: str) -> dict[str, Any]:
    role = "system" if message.role == "developer" else message.role
    made: dict[str, Any] = {"role": role, "content": _text(message.content)}
    if message.name is not None:
        made["name"] = message.name
    if isinstance(message, ToolMessage):
        made["tool_call_id"] = message.tool_call_id
    if isinstance(message, AssistantMessage):
        if message.tool_calls:
            made["tool_calls"] = [_template_call(call, place) for call in message.tool_calls]
        elif message.content is None:
            raise ApiError(400, f"{place} has neither content nor tool calls.", param=place)
        if message.reasoning_content is not None:
            made["reasoning_content"] = message.reasoning_content
    return made


def _text(content: Content | None) -> str:
    if content is None:
        return ""
    return content if isinstance(content, str) else "".join(part.text for part in content)


def _template_call(call: CalledTool, place: str) -> dict[str, Any]:
    try:
        arguments = json.loads(call.function.arguments or "{}")
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise ApiError(
            400, f"{place}.tool_calls: arguments are no JSON object.", param=f"{place}.tool_calls"
        )
    function = {"name": call.function.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def require_template(model: Model) -> None:
    """ApiError 400 for a model that cannot chat."""
    if not model.has_template:
        raise ApiError(
            400, "The model has no chat template, so it only goes on from a text: use "
            "/v1/completions.", param="messages",
        )  # fmt: skip


def template_tools(model: Model, tools: Sequence[Tool] | None) -> list[dict[str, Any]] | None:
    """Tools as chat templates take them; ApiError 400 where the template has no place for them."""
    if not tools:
        return None
    if not model.takes_tools:
        raise ApiError(400, "The model's chat template has no place for tools.", param="tools")
    return [{"type": "function", "function": _template_function(tool.function)} for tool in tools]


def _template_function(function: Function) -> dict[str, Any]:
    made: dict[str, Any] = {"name": function.name}
    if function.description is not None:
        made["description"] = function.description
    made["parameters"] = function.parameters or {"type": "object", "properties": {}}
    return made


def thinking(given: TemplateSettings | None) -> bool | None:
    """Whether the model is to think before it answers; None: as its template has it."""
    return None if given is None else given.enable_thinking


def settings(model: Model, body: Sampling) -> SamplerSettings:
    """The model's own settings with those of a body, and a seed."""
    given = {name: value for name in _SAMPLERS if (value := getattr(body, name)) is not None}
    bias = {int(token): value for token, value in (body.logit_bias or {}).items()}
    seed = None if body.seed is None or body.seed < 0 else body.seed
    return with_seed(replace(model.sampling, **given, logit_bias=bias, seed=seed))


def stops(body: Sampling) -> tuple[str, ...]:
    if body.stop is None:
        return ()
    return (body.stop,) if isinstance(body.stop, str) else tuple(body.stop)


def limit(asked: int | None, most: int | None, param: str) -> int | None:
    """The most tokens of an answer; ApiError 400 for more than the server gives."""
    if asked is None or most is None:
        return most if asked is None else asked
    if asked > most:
        raise ApiError(
            400, f"{param} is {asked}; this server writes at most {most} tokens.", param=param
        )
    return asked


def choices(request: Request, count: int) -> list[Request]:
    """`count` requests that differ in their seeds alone: the first has the request's own, each one
    more the next number."""
    seed = request.sampling.seed
    assert seed is not None
    return [
        replace(request, sampling=replace(request.sampling, seed=(seed + number) % 2**64))
        for number in range(count)
    ]


def inputs(
    model: Model, given: str | list[int] | list[str] | list[list[int]]
) -> list[Sequence[int]]:
    """The token ids of each of a body's prompts; UsageError for unknown ones."""
    single = isinstance(given, str) or isinstance(given[0], int)
    several = [given] if single else given
    return [model.ids(one) for one in cast(list[Prompt], several)]
