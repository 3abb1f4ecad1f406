"""Bodies of many wrong things: the errors are few, so that none of them holds the server up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from trit.server._errors import of_validation
from trit.server._requests import (
    Body,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    EmbeddingsRequest,
    TemplateRequest,
)

MANY = 10_000
MESSAGES = [{"role": "user", "content": "x"}]
TOOL = {"type": "function", "function": {"name": "f"}}
UNKNOWN = {f"x{number}": 1 for number in range(MANY)}


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        (ChatRequest, {"messages": [1] * 4000}),
        (ChatRequest, {"messages": [{"role": "user"}] * 4000}),
        (ChatRequest, {"messages": [{"role": "user", "content": [{}] * MANY}]}),
        (ChatRequest, {"messages": [{"role": "user", "content": [1] * MANY}]}),
        (ChatRequest, {"messages": MESSAGES, **UNKNOWN}),
        (ChatRequest, {"messages": [{**MESSAGES[0], **UNKNOWN}]}),
        (ChatRequest, {"messages": MESSAGES, "metadata": {key: 1 for key in UNKNOWN}}),
        (ChatRequest, {"messages": MESSAGES, "logit_bias": UNKNOWN}),
        (ChatRequest, {"messages": MESSAGES, "stop": [1] * MANY}),
        (ChatRequest, {"messages": MESSAGES, "tools": [{}] * 100}),
        (ChatRequest, {"messages": MESSAGES, "tools": [{**TOOL, **UNKNOWN}]}),
        (ChatRequest, {"messages": [{"role": "assistant", "tool_calls": [{}] * 100}]}),
        (CompletionRequest, {"prompt": [None] * MANY}),
        (CompletionRequest, {"prompt": [-1] * MANY}),
        (CompletionRequest, {"prompt": [[-1] * MANY] * 200}),
        (EmbeddingsRequest, {"input": ["x"] * 200 + [1] * 50}),
        (DetokenizeRequest, {"tokens": ["1"] * MANY}),
        (TemplateRequest, {"messages": MESSAGES, "tools": [1] * 100}),
    ],
)
def test_wrong_things_are_not_all_told(kind: type[Body], given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate_json(json.dumps(given))
    assert caught.value.error_count() < 10
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(given)
    assert caught.value.error_count() < 10


def test_an_unknown_field_among_many_is_named() -> None:
    for given in ({"messages": MESSAGES, **UNKNOWN}, {"messages": MESSAGES, "x0": 1}):
        with pytest.raises(ValidationError) as caught:
            ChatRequest.model_validate(given)
        error = of_validation(caught.value.errors(), given).body["error"]
        assert (error["code"], error["param"]) == ("unknown_parameter", "x0")


@pytest.mark.parametrize(
    ("kind", "given", "param", "words"),
    [
        (ChatRequest, {"stop": ["x"] * 17}, "stop", "at most 16 items"),
        (ChatRequest, {"stop": ["x", 1]}, "stop.1", "a valid string."),
        (ChatRequest, {"stop": 1}, "stop", "a valid string, or a valid list."),
        (ChatRequest, {"stop": ""}, "stop", "at least 1 character"),
        (ChatRequest, {"tool_choice": "any"}, "tool_choice", "'none', 'auto' or 'required'."),
        (ChatRequest, {"tool_choice": {"type": "function"}}, "tool_choice.function", "required"),
        (
            ChatRequest,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages.0.content.0.type",
            "should be 'text'",
        ),
        (ChatRequest, {"messages": [{"role": "user"}]}, "messages.0.content", "required"),
        (
            ChatRequest,
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            "response_format.json_schema.schema",
            "required",
        ),
        (EmbeddingsRequest, {"input": []}, "input", "at least 1 item"),
        (EmbeddingsRequest, {"input": ["x"] * 257}, "input", "at most 256 items"),
        (EmbeddingsRequest, {"input": [1, "x"]}, "input.1", "a valid integer."),
        (EmbeddingsRequest, {"input": ["x", 1]}, "input.1", "a valid string."),
        (EmbeddingsRequest, {"input": [[1], [-1]]}, "input.1.0", "greater than or equal to 0"),
        (EmbeddingsRequest, {}, "input", "required"),
        (EmbeddingsRequest, 1, None, "dictionary"),
    ],
)
def test_of_several_types_the_one_that_was_meant_is_told(
    kind: type[Body], given: Any, param: str | None, words: str
) -> None:
    if kind is ChatRequest:
        given = {"messages": MESSAGES, **given}
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(given)
    error = of_validation(caught.value.errors(), given).body["error"]
    assert error["param"] == param and error["message"].startswith(f"{param or 'body'}: ")
    assert words in error["message"] and "constrained" not in error["message"]


def test_as_much_as_is_allowed() -> None:
    biases = {str(token): 1 for token in range(1024)}
    metadata = {f"k{number}": "v" for number in range(16)}
    body = {"messages": MESSAGES * 4096, "logit_bias": biases, "metadata": metadata}
    assert len(ChatRequest.model_validate(body).messages) == 4096
    whole = {"prompt": [[1, 2]] * 256, **{name: None for name in CompletionRequest.model_fields
             if name != "prompt"}}  # fmt: skip
    assert CompletionRequest.model_validate(whole).prompt == [[1, 2]] * 256
