"""/tokenize, /detokenize and /apply-template, as llama-server has them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from trit.runtime.model import Model
from trit.server import _prompts
from trit.server._documents import refusals
from trit.server._requests import DetokenizeRequest, TemplateRequest, TokenizeRequest
from trit.server._service import Service, in_thread


@dataclass(frozen=True)
class Piece:
    """A token and its text, or its bytes where they are no text."""

    id: int
    piece: str | list[int]


@dataclass(frozen=True)
class TokenList:
    """The ids of a text."""

    tokens: list[int] | list[Piece]


@dataclass(frozen=True)
class Content:
    """The text of ids."""

    content: str


@dataclass(frozen=True)
class Prompt:
    """The text of a conversation, by the model's template."""

    prompt: str


def router(service: Service) -> APIRouter:
    """The endpoints."""
    made = APIRouter()

    @made.post(
        "/tokenize", response_model=None, responses={**refusals(), 200: {"model": TokenList}}
    )
    async def tokenize(body: TokenizeRequest) -> Response:
        """The ids of a text."""
        async with service.shelf.use(body.model) as (_, model):
            answer = await in_thread(lambda: _tokenize(model, body))
            return Response(answer, media_type="application/json")

    @made.post("/detokenize", responses=refusals())
    async def detokenize(body: DetokenizeRequest) -> Content:
        """The text of ids."""
        async with service.shelf.use(body.model) as (_, model):
            return Content(await in_thread(lambda: model.tokenizer.decode(body.tokens)))

    @made.post("/apply-template", responses=refusals())
    async def apply_template(body: TemplateRequest) -> Prompt:
        """The text that a conversation becomes."""
        async with service.shelf.use(body.model) as (_, model):
            return Prompt(await in_thread(lambda: _render(model, body)))

    return made


def _tokenize(model: Model, body: TokenizeRequest) -> bytes:
    """A `TokenList` as JSON. Made here, in a thread: it may have millions of pieces, and the
    framework, which would look at each, does so where all other requests wait."""
    ids = model.tokenizer.encode(body.content, body.add_special, body.parse_special)
    tokens: list[Any] = list(ids)
    if body.with_pieces:
        tokens = [{"id": one, "piece": _piece(model.tokenizer.token_bytes(one))} for one in ids]
    return json.dumps({"tokens": tokens}, ensure_ascii=False).encode()


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return list(raw)


def _render(model: Model, body: TemplateRequest) -> Any:
    _prompts.require_template(model)
    return model.render(
        _prompts.template_messages(body.messages),
        add_generation_prompt=body.add_generation_prompt,
        tools=_prompts.template_tools(model, body.tools),
        thinking=_prompts.thinking(body.chat_template_kwargs),
    )
