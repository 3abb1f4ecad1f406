"""/tokenize, /detokenize and /apply-template, as llama-server has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

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

    @made.post("/tokenize", responses=refusals())
    async def tokenize(body: TokenizeRequest) -> TokenList:
        """The ids of a text."""
        async with service.shelf.use(body.model) as (_, model):
            found: TokenList = await in_thread(lambda: _tokenize(model, body))
            return found

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


def _tokenize(model: Model, body: TokenizeRequest) -> TokenList:
    ids = model.tokenizer.encode(body.content, body.add_special, body.parse_special)
    if not body.with_pieces:
        return TokenList(ids)
    return TokenList([Piece(token, _piece(model.tokenizer.token_bytes(token))) for token in ids])


def _piece(raw: bytes) -> str | list[int]:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return list(raw)


def _render(model: Model, body: TemplateRequest) -> Any:
    return model.render(
        _prompts.template_messages(body.messages),
        add_generation_prompt=body.add_generation_prompt,
        tools=_prompts.template_tools(model, body.tools),
    )
