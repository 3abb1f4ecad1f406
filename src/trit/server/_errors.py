"""Errors as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}}.

Types and codes: platform.openai.com/docs/guides/error-codes. `n_prompt_tokens` and `n_ctx` of a
prompt that is too long are llama-server's names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse

from trit.errors import DoesNotFitError, TemplateError, UnsupportedError, UsageError
from trit.runtime.generate import PromptTooLongError
from trit.server.settings import RETRY_SECONDS

INVALID = "invalid_request_error"
_CODES = {404: "not_found", 405: "method_not_allowed", 408: "timeout", 413: "request_too_large"}


class ApiError(Exception):
    """An answer that is an error. `extra` goes beside the message."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = INVALID,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        error = {"message": message, "type": kind, "param": param, "code": code, **(extra or {})}
        self.body = {"error": error}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def unavailable(message: str) -> ApiError:
    """503: the request was good, and may be tried again."""
    return ApiError(
        503,
        message,
        kind="unavailable_error",
        code="unavailable",
        headers={"Retry-After": str(RETRY_SECONDS)},
    )


def internal() -> ApiError:
    """500, without a word about the request."""
    return ApiError(500, "trit failed to answer; its log says where.", kind="server_error")


def of_status(status: int, message: str) -> ApiError:
    """What the framework itself refuses."""
    return ApiError(status, message, code=_CODES.get(status))


def translated(error: Exception, param: str | None = None) -> ApiError | None:
    """The runtime's refusals; None for what is no refusal."""
    message = str(error)
    if isinstance(error, PromptTooLongError):
        # The first words are OpenAI's: clients (LiteLLM for one) look for them, not for the code.
        message = f"This model's maximum context length is {error.n_ctx} tokens: {message}"
        extra = {"n_prompt_tokens": error.n_prompt, "n_ctx": error.n_ctx}
        return ApiError(400, message, param=param, code="context_length_exceeded", extra=extra)
    if isinstance(error, UsageError | TemplateError | UnsupportedError):
        return ApiError(400, message, param=param)
    if isinstance(error, DoesNotFitError):
        return unavailable(message)
    return None


def of_validation(errors: Sequence[Mapping[str, Any]], body: Any) -> ApiError:
    """The first thing that is wrong with a body. It names the place and repeats no text of it.

    Where one of several types is allowed there are errors of each: those of the type that was
    given are told, or of the one that is right the longest.
    """
    first = errors[0]
    if first["type"] == "json_invalid":
        at = first["loc"][-1]
        return ApiError(400, f"The body is not JSON (at character {at}).", code="invalid_json")
    where = _place(first, body)
    there = [(error, _place(error, body)) for error in errors]
    there = [(error, place) for error, place in there if place[: len(where)] == where]
    error, place = max(there, key=lambda each: (not _of_type(each[0]), _indices(each[1])))
    messages = [str(error["msg"])]
    if _of_type(error):
        messages += [str(other["msg"]) for other, at in there if at == place]
    message = ", or ".join(dict.fromkeys(messages)).replace(", or Input should be ", ", or ")
    param = ".".join(map(str, place))[:200]
    if error["type"] == "extra_forbidden":
        return ApiError(400, f"'{param}' is not known here.", param=param, code="unknown_parameter")
    return ApiError(
        400, f"{param or 'body'}: {message}.", param=param or None, code="invalid_value"
    )


def _place(error: Mapping[str, Any], body: Any) -> list[str | int]:
    """The keys and indices of what is wrong, without pydantic's names of types between them."""
    parts = [part for part in error["loc"] if part != "body"]
    place: list[str | int] = []
    for part in parts:
        try:
            body = body[part]
        except (LookupError, TypeError):
            continue
        place.append(part)
    if error["type"] == "missing":
        place += parts[-1:]
    return place + ([error["ctx"]["field"]] if "field" in error.get("ctx", {}) else [])  # Body's


def _of_type(error: Mapping[str, Any]) -> bool:
    """Whether something of another type was expected."""
    kind = str(error["type"])
    return kind.endswith("_type") or (
        kind == "literal_error" and not isinstance(error["input"], str)
    )


def _indices(place: Sequence[str | int]) -> list[int]:
    return [part for part in place if isinstance(part, int)]
