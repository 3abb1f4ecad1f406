"""Generates: prompts of token ids to text, one prompt or several decoded together.

Every token is a `Chunk`, the last one of an answer says why it ended and what it took. A batch is
rows of several sequences through one engine, which promises logits that do not depend on the
company; draws are keyed by (seed, position). So a batch answers exactly as one by one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trit.errors import DoesNotFitError, UsageError
from trit.runtime._generation_cache import Held, Sequences
from trit.runtime._generation_text import StopCutter
from trit.runtime.sample import Sampler, SamplerSettings, log_probabilities
from trit.runtime.tokenizer import Tokenizer

FinishReason = Literal["stop", "length"]
TOGETHER = 16  # prompts of a batch that are decoded at the same time
SEED_BITS = 32


class PromptTooLongError(DoesNotFitError):
    """A prompt of `n_prompt` tokens for a context of `n_ctx`. Nothing is ever cut off silently."""

    def __init__(self, n_prompt: int, n_ctx: int, n_model: int) -> None:
        self.n_prompt = n_prompt
        self.n_ctx = n_ctx
        if n_prompt <= n_model:
            hint = f"Choose a larger one (--ctx-size, ctx=); the model was made for {n_model}."
        else:
            hint = f"The model was made for {n_model}: shorten the prompt."
        super().__init__(
            f"the prompt has {n_prompt} tokens, the context has room for {n_ctx}. {hint}"
        )


@dataclass(frozen=True)
class Request:
    """What to generate.

    prompt      token ids, at least one
    sampling    with its seed; None there draws one
    max_tokens  None: until the model ends, or the context is full
    stop        texts that end the answer and are not part of it
    logprobs    how many likeliest tokens to report beside the chosen one; None: nothing
    """

    prompt: Sequence[int]
    sampling: SamplerSettings
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    logprobs: int | None = None

    def __post_init__(self) -> None:
        if not self.prompt:
            raise UsageError("the prompt is empty: there is nothing to go on from.")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"max_tokens is {self.max_tokens}; expected 1 or more.")
        if isinstance(self.stop, str) or not all(self.stop):
            raise UsageError("stop is a list of texts, none of them empty.")
        if self.logprobs is not None and self.logprobs < 0:
            raise UsageError(f"logprobs is {self.logprobs}; expected 0 or more.")


@dataclass(frozen=True)
class TokenLogprob:
    """Natural log probabilities at one token, by the model alone: before any sampling setting.

    `top` has the likeliest tokens as (id, log probability), the greatest first.
    """

    token: int
    text: str
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Stats:
    """What an answer took. Seconds are of the clock, from the start of the call.

    prompt_tokens       all of the prompt; `cached_tokens` of them were still in the cache
    tokens              of the answer, without the token that ended it
    prompt_seconds      until the first token was chosen
    generation_seconds  from then to the last; `passes` is how many tokens were chosen in it
    """

    prompt_tokens: int
    cached_tokens: int
    tokens: int
    prompt_seconds: float
    generation_seconds: float
    passes: int

    @property
    def prompt_tps(self) -> float:
        """Prompt tokens read per second."""
        return (self.prompt_tokens - self.cached_tokens) / max(self.prompt_seconds, 1e-9)

    @property
    def generation_tps(self) -> float | None:
        """Tokens chosen per second after the first; None for an answer of one."""
        return self.passes / max(self.generation_seconds, 1e-9) if self.passes else None


@dataclass(frozen=True)
class Chunk:
    """What one token adds to answer `index`.

    `text` may be empty: half a character, or text held back because a stop string may begin there.
    `finish_reason` and `stats` come with the last chunk, which may have no token.
    """

    text: str
    tokens: tuple[int, ...]
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stats: Stats | None = None


@dataclass(frozen=True)
class Generation:
    """An answer.

    tokens         its ids, with those of a stop string, without the token that ended it
    finish_reason  "stop": the model ended it, or a stop string; "length": max_tokens or context
    seed           what the draws were keyed with; the same one gives the same answer
    logprobs       one per token, None if not asked for
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    stats: Stats
    seed: int
    logprobs: tuple[TokenLogprob, ...] | None = None


def with_seed(settings: SamplerSettings) -> SamplerSettings:
    """The settings with a seed; a new one where there is none."""
    if settings.seed is not None:
        return settings
    return replace(settings, seed=secrets.randbits(SEED_BITS))


def generate(
    sequences: Sequences, tokenizer: Tokenizer, requests: Sequence[Request]
) -> list[Generation]:
    """Answer all requests, up to TOGETHER of them at a time."""
    seeded = [replace(one, sampling=with_seed(one.sampling)) for one in requests]
    for request in seeded:
        require_room(sequences, request)
    answers: list[Generation] = []
    for first in range(0, len(seeded), TOGETHER):
        group = seeded[first : first + TOGETHER]
        chunks: list[list[Chunk]] = [[] for _ in group]
        for chunk in stream(sequences, tokenizer, group):
            chunks[chunk.index].append(chunk)
        answers += [join(own, one) for own, one in zip(chunks, group, strict=True)]
    return answers


def join(chunks: Iterable[Chunk], request: Request) -> Generation:
    """The answer that all its chunks make. `request` has its seed."""
    kept = list(chunks)
    last, seed = kept[-1], request.sampling.seed
    assert last.finish_reason is not None and last.stats is not None and seed is not None
    logprobs = tuple(one for chunk in kept for one in chunk.logprobs)
    return Generation(
        text="".join(chunk.text for chunk in kept),
        tokens=tuple(token for chunk in kept for token in chunk.tokens),
        finish_reason=last.finish_reason,
        stats=last.stats,
        seed=seed,
        logprobs=None if request.logprobs is None else logprobs,
    )


def stream(
    sequences: Sequences, tokenizer: Tokenizer, requests: Sequence[Request]
) -> Iterator[Chunk]:
    """The chunks of all requests, decoded together; closing the iterator frees their sequences.

    PromptTooLongError where a prompt does not fit; UsageError for a bias on an unknown token.
    """
    begun = time.perf_counter()
    for request in requests:
        require_room(sequences, request)
    answers: list[_Answer] = []
    try:
        for index, request in enumerate(requests):
            answers.append(_Answer(index, request, sequences, tokenizer, begun))
        for answer, logits in _prefill(sequences, answers):
            yield answer.choose(logits)
        while running := [answer for answer in answers if not answer.finished]:
            rows = [(answer.held, answer.tokens[-1]) for answer in running]
            all_logits = sequences.forward(rows, range(len(rows)))
            for answer, logits in zip(running, all_logits, strict=True):
                yield answer.choose(logits)
    finally:
        for answer in answers:
            sequences.give(answer.held)


def require_room(sequences: Sequences, request: Request) -> None:
    """PromptTooLongError unless the prompt fits into the context."""
    engine = sequences.engine
    if len(request.prompt) > engine.ctx:
        raise PromptTooLongError(len(request.prompt), engine.ctx, engine.plan.context_length)


def _prefill(
    sequences: Sequences, answers: Sequence[_Answer]
) -> Iterator[tuple[_Answer, NDArray[np.float32]]]:
    """Run what the cache lacks of the prompts; each answer with the logits (vocab,) of its last."""
    rows: list[tuple[Held, int]] = []
    ends: dict[int, _Answer] = {}
    for answer in answers:
        rest = answer.request.prompt[answer.cached :]
        rows += [(answer.held, token) for token in rest]
        ends[len(rows) - 1] = answer
    for first in range(0, len(rows), sequences.pass_rows):
        part = rows[first : first + sequences.pass_rows]
        outputs = [row for row in range(len(part)) if first + row in ends]
        all_logits = sequences.forward(part, outputs)
        for row, logits in zip(outputs, all_logits, strict=True):
            yield ends[first + row], logits


class _Answer:
    """One answer while it is written."""

    def __init__(
        self,
        index: int,
        request: Request,
        sequences: Sequences,
        tokenizer: Tokenizer,
        begun: float,
    ) -> None:
        self.index, self.request = index, request
        self.tokens: list[int] = []
        self.finished = False
        self._tokenizer = tokenizer
        self._sampler = Sampler(request.sampling, sequences.engine.vocab_size)
        self._sampler.accept_all(request.prompt)
        self._decoder = tokenizer.stream()
        self._cutter = StopCutter(request.stop)
        room = sequences.engine.ctx - len(request.prompt) + 1  # the last token is not run
        self._most = room if request.max_tokens is None else min(request.max_tokens, room)
        self._begun = begun
        self._first_at = 0.0
        self._chosen = 0
        self.held = sequences.take(request.prompt)
        self.cached = len(self.held.tokens)

    def choose(self, logits: NDArray[np.float32]) -> Chunk:
        """The chunk of the next token, from logits (vocab,)."""
        token = self._sampler.sample(logits, len(self.request.prompt) + len(self.tokens))
        now = time.perf_counter()
        self._chosen += 1
        if self._chosen == 1:
            self._first_at = now
        if token in self._tokenizer.eos_ids:
            return self._last("", (), (), "stop", now)
        self.tokens.append(token)
        self._sampler.accept(token)
        logprobs = self._logprobs(logits, token)
        text = self._cutter.push(self._decoder.push(token))
        if self._cutter.stopped:
            return self._last(text, (token,), logprobs, "stop", now)
        if len(self.tokens) >= self._most:
            return self._last(text, (token,), logprobs, "length", now)
        return Chunk(text, (token,), self.index, logprobs)

    def _last(
        self,
        text: str,
        tokens: tuple[int, ...],
        logprobs: tuple[TokenLogprob, ...],
        reason: FinishReason,
        now: float,
    ) -> Chunk:
        self.finished = True
        if not self._cutter.stopped:
            text += self._cutter.push(self._decoder.finish()) + self._cutter.finish()
        stats = Stats(
            prompt_tokens=len(self.request.prompt),
            cached_tokens=self.cached,
            tokens=len(self.tokens),
            prompt_seconds=self._first_at - self._begun,
            generation_seconds=now - self._first_at,
            passes=self._chosen - 1,
        )
        return Chunk(text, tokens, self.index, logprobs, reason, stats)

    def _logprobs(self, logits: NDArray[np.float32], token: int) -> tuple[TokenLogprob, ...]:
        count = self.request.logprobs
        if count is None:
            return ()
        own, best = log_probabilities(logits, token, count)
        text = self._tokenizer.token_bytes(token).decode("utf-8", "replace")
        return (TokenLogprob(token, text, own, tuple(best)),)
