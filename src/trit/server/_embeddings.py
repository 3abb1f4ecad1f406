"""/v1/embeddings: platform.openai.com/docs/api-reference/embeddings.

The vectors are those of runtime/embed.py. They are read between the steps of other requests, a pass
at a time, and take a slot like any answer.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Literal

import numpy as np
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray

from trit.runtime.embed import Reading
from trit.runtime.generate import PromptTooLongError
from trit.runtime.model import Model
from trit.server import _prompts
from trit.server._documents import refusals
from trit.server._requests import EmbeddingsRequest
from trit.server._service import Service, in_thread


@dataclass(frozen=True)
class Embedding:
    """A vector, as numbers or as base64 of little-endian float32."""

    index: int
    embedding: list[float] | str
    object: Literal["embedding"] = "embedding"


@dataclass(frozen=True)
class EmbeddingUsage:
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


@dataclass(frozen=True)
class EmbeddingList:
    """A vector for each input."""

    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    object: Literal["list"] = "list"


def router(service: Service) -> APIRouter:
    """The endpoint."""
    made = APIRouter()

    @made.post(
        "/v1/embeddings",
        response_model=None,
        responses={**refusals(), 200: {"model": EmbeddingList}},
    )
    async def embed(body: EmbeddingsRequest) -> Response:
        """The vectors of texts, or of token ids."""
        async with AsyncExitStack() as stack:
            place = stack.enter_context(service.queue.place())
            name, model = await stack.enter_async_context(service.shelf.use(body.model))
            await place.turn()
            inputs: list[Sequence[int]] = await in_thread(lambda: _inputs(model, body))
            vectors = [await _vector(service, model, tokens) for tokens in inputs]
            count = sum(len(tokens) for tokens in inputs)
            return JSONResponse(_answer(name, vectors, count, body.encoding_format == "base64"))

    return made


def _inputs(model: Model, body: EmbeddingsRequest) -> list[Sequence[int]]:
    inputs = _prompts.inputs(model, body.input)
    for tokens in inputs:
        if len(tokens) > model.ctx:
            raise PromptTooLongError(len(tokens), model.ctx, model.plan.context_length)
    return inputs


async def _vector(service: Service, model: Model, tokens: Sequence[int]) -> NDArray[np.float32]:
    reading = Reading(model.scheduler, tokens)
    whole = False
    try:
        while not whole:
            whole = await service.driver.call(reading.read)
    finally:
        if not whole:
            service.driver.call_soon(reading.drop)
    return reading.vector


def _answer(
    name: str, vectors: Sequence[NDArray[np.float32]], count: int, packed: bool
) -> dict[str, object]:
    data = [
        {
            "object": "embedding",
            "index": index,
            "embedding": _packed(vector) if packed else vector.tolist(),
        }
        for index, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": name, "usage": usage}


def _packed(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
