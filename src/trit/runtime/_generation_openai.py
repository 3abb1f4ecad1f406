"""Answers in the shape of OpenAI's chat completions, as dataclasses.

`to_dict` gives the JSON; spec: platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trit.runtime._tool_calls import Found, ToolCallParser
from trit.runtime.generate import Chunk, FinishReason, Generation, Stats, TokenLogprob
from trit.runtime.tokenizer import Tokenizer

Reason = Literal["stop", "length", "tool_calls"]


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
class FunctionCall:
    """A function that the model wants called; `arguments` is JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True)
class ToolCall:
    """A call in an answer; `index` counts those of one answer, and is in streams alone."""

    id: str
    function: FunctionCall
    index: int | None = None
    type: Literal["function"] = "function"


@dataclass(frozen=True)
class Message:
    """What the model said; no content where it calls functions and says nothing else. The name
    `reasoning_content` is that of DeepSeek's interface, which others took over."""

    role: Literal["assistant"]
    content: str | None
    tool_calls: tuple[ToolCall, ...] | None = None
    reasoning_content: str | None = None


@dataclass(frozen=True)
class Choice:
    """One answer; there are as many as were asked for."""

    index: int
    message: Message
    finish_reason: Reason
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class PromptDetails:
    """`cached_tokens` of the prompt were still in the cache."""

    cached_tokens: int


@dataclass(frozen=True)
class CompletionDetails:
    """`reasoning_tokens` of the answers were thoughts."""

    reasoning_tokens: int


@dataclass(frozen=True)
class Usage:
    """Tokens read and written, those of all answers; a prompt counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


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
        """As JSON has it: calls and thoughts that there are not are absent from it."""
        answer = asdict(self)
        for choice in answer["choices"]:
            message = choice["message"]
            for name in ("tool_calls", "reasoning_content"):
                if not message[name]:
                    del message[name]
            for call in message.get("tool_calls", ()):
                del call["index"]
        return answer


@dataclass(frozen=True)
class Delta:
    """What a chunk adds; `role` is in the first one alone."""

    content: str | None = None
    role: Literal["assistant"] | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    reasoning_content: str | None = None


@dataclass(frozen=True)
class ChunkChoice:
    """The next piece of an answer."""

    index: int
    delta: Delta
    finish_reason: Reason | None = None
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class ChatCompletionChunk:
    """A piece of a streamed answer: `.choices[0].delta.content`.

    `usage` comes in a chunk of its own, without choices.
    """

    id: str
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | None = None
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: what a delta does not say is absent from it, and usage that is none."""
        answer = asdict(self)
        if self.usage is None:
            del answer["usage"]
        for choice in answer["choices"]:
            choice["delta"] = {k: v for k, v in choice["delta"].items() if v is not None}
        return answer


def completion(
    model: str, answers: Sequence[Generation], tokenizer: Tokenizer, *, tools: bool = False
) -> ChatCompletion:
    """The completion of finished answers to one prompt. `tools`: look for calls in them."""
    return ChatCompletion(
        id=unique("chatcmpl"),
        created=int(time.time()),
        model=model,
        choices=tuple(
            _choice(index, answer, tokenizer, tools) for index, answer in enumerate(answers)
        ),
        usage=usage([answer.stats for answer in answers], len(answers)),
    )


def usage(stats: Sequence[Stats], per_prompt: int = 1) -> Usage:
    """What answers took; `per_prompt` of them in a row belong to one prompt."""
    read = sum(one.prompt_tokens for one in stats[::per_prompt])
    written = sum(one.tokens for one in stats)
    cached = sum(one.cached_tokens for one in stats[::per_prompt])
    thought = CompletionDetails(sum(one.reasoning_tokens for one in stats))
    return Usage(read, written, read + written, PromptDetails(cached), thought)


def completion_chunks(
    model: str, chunks: Iterable[Chunk], tokenizer: Tokenizer
) -> Iterator[ChatCompletionChunk]:
    """The role, then a chunk for each token that brings text or log probabilities, then the end."""
    stream = CompletionStream(model, tokenizer)
    yield from stream.begin()
    for chunk in chunks:
        yield from stream.push(chunk)


class CompletionStream:
    """Makes the chunks of one completion, as tokens of its answers come in any order."""

    def __init__(
        self, model: str, tokenizer: Tokenizer, count: int = 1, *, tools: bool = False
    ) -> None:
        """`count` answers. `tools`: look for calls in them."""
        self._model, self._tokenizer = model, tokenizer
        self._id, self._created = unique("chatcmpl"), int(time.time())
        self._parsers = [ToolCallParser() for _ in range(count)] if tools else []
        self._calls = [0] * count
        self._stats: dict[int, Stats] = {}

    def begin(self) -> list[ChatCompletionChunk]:
        """The role of every answer."""
        return [self._chunk(index, Delta("", "assistant")) for index in range(len(self._calls))]

    def push(self, chunk: Chunk) -> list[ChatCompletionChunk]:
        """What a token adds: thoughts, text, calls that it completes, the end."""
        text, calls = self._parsed(chunk)
        made = []
        if chunk.reasoning:
            made.append(self._chunk(chunk.index, Delta(reasoning_content=chunk.reasoning)))
        if text or chunk.logprobs:
            logprobs = _logprobs(chunk.logprobs, self._tokenizer) if chunk.logprobs else None
            made.append(self._chunk(chunk.index, Delta(text), None, logprobs))
        for call in calls:
            made.append(self._chunk(chunk.index, Delta(tool_calls=(call,))))
        if chunk.finish_reason is not None:
            assert chunk.stats is not None
            self._stats[chunk.index] = chunk.stats
            reason = _reason(chunk.finish_reason, self._calls[chunk.index] > 0)
            made.append(self._chunk(chunk.index, Delta(), reason))
        return made

    def usage(self) -> ChatCompletionChunk:
        """What all answers took, once they have ended."""
        stats = [self._stats[index] for index in sorted(self._stats)]
        total = usage(stats, len(self._calls))
        return ChatCompletionChunk(self._id, self._created, self._model, (), total)

    def _parsed(self, chunk: Chunk) -> tuple[str, list[ToolCall]]:
        if not self._parsers:
            return chunk.text, []
        parser = self._parsers[chunk.index]
        text, found = parser.push(chunk.text)
        if chunk.finish_reason is not None:
            text += parser.finish()
        first = self._calls[chunk.index]
        self._calls[chunk.index] += len(found)
        return text, [_call(one, first + number) for number, one in enumerate(found)]

    def _chunk(
        self,
        index: int,
        delta: Delta,
        reason: Reason | None = None,
        logprobs: Logprobs | None = None,
    ) -> ChatCompletionChunk:
        choice = ChunkChoice(index, delta, reason, logprobs)
        return ChatCompletionChunk(self._id, self._created, self._model, (choice,))


def unique(prefix: str) -> str:
    """A name that nothing else has."""
    return f"{prefix}-{secrets.token_hex(12)}"


def _choice(index: int, answer: Generation, tokenizer: Tokenizer, tools: bool) -> Choice:
    text, found = answer.text, list[Found]()
    if tools:
        parser = ToolCallParser()
        text, found = parser.push(answer.text)
        text += parser.finish()
    calls = tuple(_call(one) for one in found)
    return Choice(
        index,
        Message(
            "assistant", text or None if calls else text, calls or None, answer.reasoning or None
        ),
        _reason(answer.finish_reason, bool(calls)),
        None if answer.logprobs is None else _logprobs(answer.logprobs, tokenizer),
    )


def _call(found: Found, index: int | None = None) -> ToolCall:
    return ToolCall(unique("call"), FunctionCall(found.name, found.arguments), index)


def _reason(reason: FinishReason, calls: bool) -> Reason:
    return "tool_calls" if calls and reason == "stop" else reason


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
