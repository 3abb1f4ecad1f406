"""Answers in the shape of OpenAI's chat completions, as dataclasses.

`to_dict` gives the JSON; spec: platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trit.runtime.generate import Chunk, FinishReason, Generation, TokenLogprob
from trit.runtime.tokenizer import Tokenizer


@dataclass(frozen=True)
class TopLogprob:
    """One of the likeliest tokens at a place."""

    token: str
    logprob: float
    bytes: tuple[int, ...]


@dataclass(frozen=True)
class ContentLogprob:
    """One token of the answer."""

    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[TopLogprob, ...]


@dataclass(frozen=True)
class Logprobs:
    """Natural log probabilities of an answer's tokens."""

    content: tuple[ContentLogprob, ...]


@dataclass(frozen=True)
class Message:
    """What the model said."""

    role: Literal["assistant"]
    content: str


@dataclass(frozen=True)
class Choice:
    """The answer; there is always one."""

    index: int
    message: Message
    finish_reason: FinishReason
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class PromptDetails:
    """`cached_tokens` of the prompt were still in the cache."""

    cached_tokens: int


@dataclass(frozen=True)
class Usage:
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


@dataclass(frozen=True)
class ChatCompletion:
    """A whole answer: `.choices[0].message.content`."""

    id: str
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Delta:
    """What a chunk adds; `role` is in the first one alone."""

    content: str | None = None
    role: Literal["assistant"] | None = None


@dataclass(frozen=True)
class ChunkChoice:
    """The answer's next piece."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class ChatCompletionChunk:
    """A piece of a streamed answer: `.choices[0].delta.content`."""

    id: str
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: what a delta does not say is absent from it."""
        answer = asdict(self)
        for choice in answer["choices"]:
            choice["delta"] = {k: v for k, v in choice["delta"].items() if v is not None}
        return answer


def completion(model: str, answer: Generation, tokenizer: Tokenizer) -> ChatCompletion:
    """The completion of a finished answer."""
    stats = answer.stats
    return ChatCompletion(
        id=_id(),
        created=int(time.time()),
        model=model,
        choices=(
            Choice(
                0,
                Message("assistant", answer.text),
                answer.finish_reason,
                None if answer.logprobs is None else _logprobs(answer.logprobs, tokenizer),
            ),
        ),
        usage=Usage(
            prompt_tokens=stats.prompt_tokens,
            completion_tokens=stats.tokens,
            total_tokens=stats.prompt_tokens + stats.tokens,
            prompt_tokens_details=PromptDetails(stats.cached_tokens),
        ),
    )


def completion_chunks(
    model: str, chunks: Iterable[Chunk], tokenizer: Tokenizer
) -> Iterator[ChatCompletionChunk]:
    """The role, then a chunk for each token that brings text or log probabilities, then the end."""
    name, created = _id(), int(time.time())

    def chunk(
        delta: Delta, reason: FinishReason | None = None, logprobs: Logprobs | None = None
    ) -> ChatCompletionChunk:
        choice = ChunkChoice(0, delta, reason, logprobs)
        return ChatCompletionChunk(name, created, model, (choice,))

    yield chunk(Delta("", "assistant"))
    for one in chunks:
        if one.text or one.logprobs:
            logprobs = _logprobs(one.logprobs, tokenizer) if one.logprobs else None
            yield chunk(Delta(one.text), None, logprobs)
        if one.finish_reason is not None:
            yield chunk(Delta(), one.finish_reason)


def _id() -> str:
    return f"chatcmpl-{secrets.token_hex(12)}"


def _logprobs(tokens: Iterable[TokenLogprob], tokenizer: Tokenizer) -> Logprobs:
    content = []
    for one in tokens:
        top = tuple(
            TopLogprob(text, logprob, raw)
            for token, logprob in one.top
            for text, raw in (_spelled(tokenizer, token),)
        )
        text, raw = _spelled(tokenizer, one.token)
        content.append(ContentLogprob(text, one.logprob, raw, top))
    return Logprobs(tuple(content))


def _spelled(tokenizer: Tokenizer, token: int) -> tuple[str, tuple[int, ...]]:
    raw = tokenizer.token_bytes(token)
    return raw.decode("utf-8", "replace"), tuple(raw)
