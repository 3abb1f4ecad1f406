"""What the OpenAPI document says of answers: errors in one shape, streams of events."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_REFUSED = {
    400: "The request makes no sense to this server.",
    401: "No valid key.",
    403: "A Host or an Origin that is not let in.",
    404: "There is no such model.",
    408: "The body took too long.",
    413: "The body is too large.",
    500: "A fault of the server.",
    503: "Loading, or the queue is full, or it took too long: try again later.",
}


class Error(BaseModel):
    """OpenAI's shape; the last two are of a prompt that is too long."""

    message: str
    type: str
    param: str | None
    code: str | None
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class ErrorBody(BaseModel):
    """Every answer that is an error."""

    error: Error


def refusals() -> dict[int | str, dict[str, Any]]:
    """The errors of an endpoint."""
    return {
        status: {"model": ErrorBody, "description": description}
        for status, description in _REFUSED.items()
    }


def events(model: type) -> dict[str, Any]:
    """An answer that is `model`, or, with `stream`, events of its chunks."""
    return {
        "model": model,
        "description": "The answer; with stream: true as events, `data: [DONE]` the last.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
