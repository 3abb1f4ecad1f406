"""Generates: prompts of token ids to text, one prompt or several decoded together.

Every token is a `Chunk`, the last one of an answer says why it ended and what it took. Answers are
runs of a scheduler, which decodes all that are under way together, those of other calls and threads
too; a batch answers exactly as one by one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trit.engine import Engine
from trit.errors import DoesNotFitError, UsageError
from trit.runtime._generation_text import StopCutter
from trit.runtime.constrain import Grammar
from trit.runtime.reasoning import Reasoning, Splitter
from trit.runtime.sample import Sampler, SamplerSettings, log_probabilities
from trit.runtime.scheduler import Run, Scheduler
from trit.runtime.tokenizer import Tokenizer

FinishReason = Literal["stop", "length"]
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
    grammar     the form of the answer (constrain.py), not of thoughts before it; None: any text
    reasoning   how thoughts are told from the answer (reasoning.py); None: they are not
    """

    prompt: Sequence[int]
    sampling: SamplerSettings
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    logprobs: int | None = None
    grammar: Grammar | None = None
    reasoning: Reasoning | None = None

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
    drafted_tokens      guessed ahead and run; `accepted_tokens` of them each saved a step
    reasoning_tokens    of `tokens`: thoughts and their tags
    """

    prompt_tokens: int
    cached_tokens: int
    tokens: int
    prompt_seconds: float
    generation_seconds: float
    passes: int
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    reasoning_tokens: int = 0

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
    `reasoning` is text, too, where thoughts are told from the answer.
    `finish_reason` and `stats` come with the last chunk, which may have no token.
    """

    text: str
    tokens: tuple[int, ...]
    index: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    stats: Stats | None = None
    reasoning: str = ""


@dataclass(frozen=True)
class Generation:
    """An answer.

    tokens         its ids, with those of a stop string, without the token that ended it
    finish_reason  "stop": the model ended it, or a stop string; "length": max_tokens or context
    seed           what the draws were keyed with; the same one gives the same answer
    reasoning      the thoughts before it, where they are told from it
    logprobs       one per token, None if not asked for
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    stats: Stats
    seed: int
    logprobs: tuple[TokenLogprob, ...] | None = None
    reasoning: str = ""


def with_seed(settings: SamplerSettings) -> SamplerSettings:
    """The settings with a seed; a new one where there is none."""
    if settings.seed is not None:
        return settings
    return replace(settings, seed=secrets.randbits(SEED_BITS))


def generate(
    scheduler: Scheduler, tokenizer: Tokenizer, requests: Sequence[Request]
) -> list[Generation]:
    """Answer all requests."""
    seeded = [replace(one, sampling=with_seed(one.sampling)) for one in requests]
    chunks: list[list[Chunk]] = [[] for _ in seeded]
    for chunk in stream(scheduler, tokenizer, seeded):
        chunks[chunk.index].append(chunk)
    return [join(own, one) for own, one in zip(chunks, seeded, strict=True)]


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
        reasoning="".join(chunk.reasoning for chunk in kept),
    )


def stream(
    scheduler: Scheduler, tokenizer: Tokenizer, requests: Sequence[Request]
) -> Generator[Chunk, None, None]:
    """The chunks of all requests, decoded together; closing the iterator drops their sequences.

    PromptTooLongError where a prompt does not fit; UsageError for a bias on an unknown token.
    """
    begun = time.perf_counter()
    with closing(scheduler.follow(answers(scheduler, tokenizer, requests, begun))) as chosen:
        for _, chunk in chosen:
            yield chunk


def answers(
    scheduler: Scheduler, tokenizer: Tokenizer, requests: Sequence[Request], begun: float
) -> list[Answer]:
    """The runs of all requests, to be added to the scheduler; `begun` is when the wait for them
    began, on perf_counter's clock. Errors as for `stream`."""
    for request in requests:
        require_room(scheduler.engine, request)
    return [
        Answer(index, request, scheduler.engine, tokenizer, begun)
        for index, request in enumerate(requests)
    ]


def require_room(engine: Engine, request: Request) -> None:
    """PromptTooLongError unless the prompt fits into the context."""
    if len(request.prompt) > engine.ctx:
        raise PromptTooLongError(len(request.prompt), engine.ctx, engine.plan.context_length)


class Answer(Run[Chunk]):
    """One answer while it is written."""

    def __init__(
        self,
        index: int,
        request: Request,
        engine: Engine,
        tokenizer: Tokenizer,
        begun: float,
    ) -> None:
        self.index, self.request = index, request
        room = engine.ctx - len(request.prompt) + 1  # the last token is not run
        self._most = room if request.max_tokens is None else min(request.max_tokens, room)
        super().__init__(request.prompt, len(request.prompt) + self._most)
        self._tokenizer = tokenizer
        self._sampler = Sampler(request.sampling, engine.vocab_size)
        self._sampler.accept_all(request.prompt)
        form = request.reasoning
        self._decoder = tokenizer.stream(shown=frozenset() if form is None else form.tokens)
        self._splitter = None if form is None else Splitter(form)
        self._thought = 0  # tokens
        self._cutter = StopCutter(request.stop)
        self._guide = None if request.grammar is None else request.grammar.begin()
        self._begun = begun
        self._first_at = 0.0
        self._chosen = self._written = 0

    def choose(self, logits: NDArray[np.float32]) -> tuple[Chunk, int | None]:
        """The chunk of the next token, and that token unless the answer is over."""
        thinks = self._splitter is not None and self._splitter.inside
        guide = None if thinks else self._guide
        allowed = logits if guide is None else guide.allowed(logits)
        token = self._sampler.sample(allowed, len(self.tokens))
        now = time.perf_counter()
        self._chosen += 1
        if self._chosen == 1:
            self._first_at = now
        if token in self._tokenizer.eos_ids:
            return self._last(("", ""), (), (), "stop", now), None
        self._written += 1
        self._sampler.accept(token)
        logprobs = self._logprobs(logits, token)
        text = self._split(self._cutter.push(self._decoder.push(token)))
        if self._splitter is not None and (thinks or self._splitter.inside):
            self._thought = self._written  # nothing comes before thoughts
        whole = guide is not None and guide.accept(token)
        if self._cutter.stopped or whole:
            return self._last(text, (token,), logprobs, "stop", now), None
        if self._written >= self._most:
            return self._last(text, (token,), logprobs, "length", now), None
        return Chunk(text[1], (token,), self.index, logprobs, reasoning=text[0]), token

    def _split(self, text: str) -> tuple[str, str]:
        """What of it is thought, and what is said."""
        return ("", text) if self._splitter is None else self._splitter.push(text)

    def _last(
        self,
        text: tuple[str, str],
        tokens: tuple[int, ...],
        logprobs: tuple[TokenLogprob, ...],
        reason: FinishReason,
        now: float,
    ) -> Chunk:
        parts = [text]
        if not self._cutter.stopped:
            rest = self._cutter.push(self._decoder.finish()) + self._cutter.finish()
            parts.append(self._split(rest))
        if self._splitter is not None:
            parts.append(self._splitter.finish())
        thought, said = map("".join, zip(*parts, strict=True))
        stats = Stats(
            prompt_tokens=len(self.request.prompt),
            cached_tokens=self.cached,
            tokens=self._written,
            prompt_seconds=self._first_at - self._begun,
            generation_seconds=now - self._first_at,
            passes=self._chosen - 1,
            drafted_tokens=self.drafted,
            accepted_tokens=self.accepted,
            reasoning_tokens=self._thought,
        )
        return Chunk(said, tokens, self.index, logprobs, reason, stats, thought)

    def _logprobs(self, logits: NDArray[np.float32], token: int) -> tuple[TokenLogprob, ...]:
        count = self.request.logprobs
        if count is None:
            return ()
        own, best = log_probabilities(logits, token, count)
        text = self._tokenizer.token_bytes(token).decode("utf-8", "replace")
        return (TokenLogprob(token, text, own, tuple(best)),)
