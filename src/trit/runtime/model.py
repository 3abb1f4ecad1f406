"""A model one can talk to: file, plan, engine, tokenizer and chat template behind one object.

    with trit.load("model.gguf") as model:
        model.generate("Once upon a time", max_tokens=64).text
        for chunk in model.stream("Hi"): print(chunk.text, end="")
        model.chat([{"role": "user", "content": "Hi"}]).choices[0].message.content

Weights stay in the file's mapping, the cache of keys and values grows with what is in use, so
opening costs little memory whatever the context.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast, overload

from trit import archs
from trit.engine import Engine
from trit.errors import DoesNotFitError, UnsupportedError, UsageError
from trit.files import checkpoint
from trit.files.checkpoint import Checkpoint
from trit.runtime import generate as generation
from trit.runtime import reasoning
from trit.runtime._apart import encode as encode_apart
from trit.runtime._apart import set_apart
from trit.runtime._generation_openai import (
    ChatCompletion,
    ChatCompletionChunk,
    completion,
    completion_chunks,
)
from trit.runtime.chat import ChatTemplate
from trit.runtime.constrain import Grammar, Schema, json_schema
from trit.runtime.generate import Chunk, Generation, Request
from trit.runtime.own_sampling import own_sampling
from trit.runtime.reasoning import Reasoning
from trit.runtime.sample import SamplerSettings
from trit.runtime.scheduler import PASS_ROWS, TOGETHER, Scheduler
from trit.runtime.tokenizer import Tokenizer

DRAFT_MAX = 15
DEFAULT_CTX = 4096  # or the model's own context, if that is less
TEMPLATE_KEY = "tokenizer.chat_template"

Prompt = str | Sequence[int]
Batch = list[str] | list[list[int]] | list[Prompt]
Messages = Sequence[Mapping[str, Any]]
OnProgress = Callable[[str, int, int], None]


def load(
    reference: str | os.PathLike[str],
    ctx: int | None = None,
    threads: int | None = None,
    *,
    batch: int = PASS_ROWS,
    draft_max: int = DRAFT_MAX,
    parallel: int = TOGETHER,
    cache_type: str = "f16",
    repack: bool | None = None,
    chat: bool = False,
    on_progress: OnProgress | None = None,
) -> Model:
    """Open a model: a path (GGUF file or Hugging Face folder), a zoo name, or hf:org/repo[:QUANT].

    ctx          tokens of prompt and answer together; None: 4096, or the model's own context if
                 that is less; 0: the model's own
    threads      None: as many as the process may use
    batch        rows of a prompt per pass; changes speed and memory, never an answer
    draft_max    most tokens guessed ahead from text that repeats itself, 0: none; changes speed,
                 never an answer
    parallel     answers decoded at the same time; more of them wait
    cache_type   what keys and values are kept in: f16, or q8_0 at about half the memory, or f32
    repack       copy the weights into an order that is read faster, in place of the mapped file;
                 None: if memory allows
    chat         prepare the chat template while the model loads, not with the first message
    on_progress  called with (what, done, total) while a model is pulled
    Errors: SourceError (no such model), InvalidFileError, UnsupportedError (trit cannot run it),
    DoesNotFitError (`ctx` beyond what the model was made for), UsageError.
    """
    path = Path(reference).expanduser()
    if not path.exists():
        from trit import zoo

        path = zoo.resolve(os.fspath(reference), on_progress)
    return Model(
        checkpoint.open(path), ctx, threads, batch=batch, draft_max=draft_max, parallel=parallel,
        cache_type=cache_type, repack=repack, chat=chat,
    )  # fmt: skip


class Model:
    """An open model; a context manager. Made by `load`.

    path       what was opened
    ctx        tokens a prompt and its answer may have together
    sampling   the settings used where a call names no others: the model's own, else trit's
    plan, tensors, engine, scheduler, tokenizer   its parts
    """

    def __init__(
        self,
        file: Checkpoint,
        ctx: int | None = None,
        threads: int | None = None,
        *,
        batch: int = PASS_ROWS,
        draft_max: int = DRAFT_MAX,
        parallel: int = TOGETHER,
        cache_type: str = "f16",
        repack: bool | None = None,
        chat: bool = False,
    ) -> None:
        """As `load`; the file is closed with the model, or if it cannot be run."""
        if (ctx is not None and ctx < 0) or batch < 1 or draft_max < 0 or parallel < 1:
            raise UsageError(
                f"ctx is {ctx}, batch {batch}, draft_max {draft_max}, parallel {parallel}; "
                "expected 0 or more, 1 or more, 0 or more, and 1 or more."
            )
        with ExitStack() as stack:
            stack.enter_context(file)
            self.path = file.path
            self.metadata = file.metadata
            self._closed = False
            self._template: ChatTemplate | None = None
            stack.callback(self._close_template)
            if chat and self.has_template:
                self._chat_template()
            self.plan = archs.plan(file, context=DEFAULT_CTX if ctx is None else ctx or None)
            longest = self.plan.context_length
            if ctx is not None and ctx > longest:
                raise DoesNotFitError(
                    f"{file.path}: a context of {ctx} tokens is asked for, the model was made for "
                    f"{longest}."
                )
            self.ctx = min(DEFAULT_CTX, longest) if ctx is None else ctx or longest
            self.sampling = own_sampling(file)
            self.tensors = file.tensors
            self.engine = Engine(
                self.plan,
                file.tensors,
                threads,
                self.ctx,
                batch,
                cache_type=cache_type,
                repack=repack,
            )
            self.weight_bytes = sum(tensor.nbytes for tensor in file.tensors.values())
            self.scheduler = Scheduler(
                self.engine, pass_rows=batch, together=parallel, draft_max=draft_max
            )
            self._close = stack.pop_all()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __fspath__(self) -> str:
        """Where a path is asked for, `trit.evaluate(model, …)` for one, a model stands for its."""
        return os.fspath(self.path)

    __str__ = __fspath__

    def __repr__(self) -> str:
        return f"<trit.Model {self.name} from {self.path}>"

    def close(self) -> None:
        """Let go of the file and the template's process. The model answers no more: UsageError."""
        self._closed = True
        self._close.close()

    @property
    def name(self) -> str:
        """general.name, or that of the file."""
        name = self.metadata.get("general.name")
        return name if isinstance(name, str) and name else Path(self.path).stem

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """InvalidFileError or UnsupportedError for a vocabulary that cannot be used."""
        return Tokenizer.from_gguf(self.metadata, name=self.path)

    @property
    def has_template(self) -> bool:
        """Whether one can chat with it; a base model only goes on from a text."""
        source = self.metadata.get(TEMPLATE_KEY)
        return isinstance(source, str) and bool(source.strip())

    def tokenize(self, text: str) -> list[int]:
        """The ids of a prompt, with the BOS the model wants, and no EOS."""
        return self._with_bos(self.tokenizer.encode(text, add_special=False))

    @property
    def takes_tools(self) -> bool:
        """Whether the chat template has a place for descriptions of tools."""
        return self.has_template and "tools" in cast(str, self.metadata[TEMPLATE_KEY])

    def render(
        self,
        messages: Messages,
        *,
        add_generation_prompt: bool = True,
        tools: Messages | None = None,
        thinking: bool | None = None,
    ) -> str:
        """The text of a conversation by the model's chat template; TemplateError if it fails.

        `messages` are {"role": "system" | "user" | "assistant" | "tool", "content": text}, `tools`
        what the model may call, {"type": "function", "function": {"name", "parameters", …}}.
        `thinking` False: the model is to answer at once, where its template can say so.
        """
        return self._chat_template().render(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            thinking=thinking,
            bos_token=self._spelled(self.tokenizer.bos_id),
            eos_token=self._spelled(self.tokenizer.eos_id),
        )

    def prompt(
        self,
        messages: Messages,
        tools: Messages | None = None,
        thinking: bool | None = None,
        *,
        add_generation_prompt: bool = True,
    ) -> list[int]:
        """The ids of a conversation, up to where the model answers.

        What spells a control token in a message or tool is text, and does not become that token.
        """
        source = self._chat_template().source
        said, told, sign = set_apart(self.tokenizer, messages, tools, source)
        text = self.render(
            said, tools=told, thinking=thinking, add_generation_prompt=add_generation_prompt
        )
        ids = encode_apart(self.tokenizer, text, sign)
        # Most templates write the BOS themselves; it is wanted once.
        return ids if ids[:1] == [self.tokenizer.bos_id] else self._with_bos(ids)

    def reasoning(self, prompt: Sequence[int]) -> Reasoning | None:
        """How thoughts are told from an answer to `prompt`, which `prompt` made; None: the model
        has none."""
        form = self._reasoning
        return None if form is None else reasoning.of_prompt(form, self.tokenizer, prompt)

    @cached_property
    def _reasoning(self) -> Reasoning | None:
        return reasoning.find(self._chat_template().source, self.tokenizer)

    @overload
    def generate(
        self,
        prompt: Prompt,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        schema: Schema | None = None,
        sampling: SamplerSettings | None = None,
    ) -> Generation: ...

    @overload
    def generate(
        self,
        prompt: Batch,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        schema: Schema | None = None,
        sampling: SamplerSettings | None = None,
    ) -> list[Generation]: ...

    def generate(
        self,
        prompt: Prompt | Batch,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        schema: Schema | None = None,
        sampling: SamplerSettings | None = None,
    ) -> Generation | list[Generation]:
        """Go on from a text, or from token ids; from each of a list of them, decoded together.

        max_tokens   None: until the model ends, or the context is full
        temperature, top_k, top_p, min_p, seed   in place of those of `sampling`
        stop         texts that end the answer and are not part of it
        logprobs     report every token's log probability, and of that many likeliest ones
        schema       a JSON schema: the answer is JSON of it (extra `schema`)
        sampling     None: the model's own settings. Without a seed each prompt draws its own
        Errors: PromptTooLongError (has n_prompt and n_ctx), UsageError, UnsupportedError (no
        llguidance, which a schema needs).
        """
        chosen = _chosen(sampling or self.sampling, temperature, top_k, top_p, min_p, seed)
        single = _is_prompt(prompt)
        prompts = [cast(Prompt, prompt)] if single else cast(list[Prompt], prompt)
        grammar = self.grammar(schema)
        requests = [
            Request(self.ids(one), chosen, max_tokens, stop, logprobs, grammar) for one in prompts
        ]
        answers = generation.generate(self.scheduler, self.tokenizer, requests)
        return answers[0] if single else answers

    def stream(
        self,
        prompt: Prompt,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        schema: Schema | None = None,
        sampling: SamplerSettings | None = None,
    ) -> Iterator[Chunk]:
        """As `generate` for one prompt, a chunk per token; the last one has the reason and stats.

        The request is checked at once, the model runs when the first chunk is asked for.
        """
        chosen = _chosen(sampling or self.sampling, temperature, top_k, top_p, min_p, seed)
        grammar = self.grammar(schema)
        return self.answer(Request(self.ids(prompt), chosen, max_tokens, stop, logprobs, grammar))

    def answer(self, request: Request) -> Iterator[Chunk]:
        """As `stream`, for a request that is made already."""
        self._require_open()
        generation.require_room(self.engine, request)
        return generation.stream(self.scheduler, self.tokenizer, [request])

    @overload
    def chat(
        self,
        messages: Messages,
        stream: Literal[False] = False,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        schema: Schema | None = None,
        sampling: SamplerSettings | None = None,
    ) -> ChatCompletion: ...

    @overload
    def chat(
        self,
        messages: Messages,
        stream: Literal[True],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        schema: Schema | None = None,
        sampling: SamplerSettings | None = None,
    ) -> Iterator[ChatCompletionChunk]: ...

    def chat(
        self,
        messages: Messages,
        stream: bool = False,
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] = (),
        logprobs: int | None = None,
        schema: Schema | None = None,
        sampling: SamplerSettings | None = None,
    ) -> ChatCompletion | Iterator[ChatCompletionChunk]:
        """The model's answer to a conversation, in the shape of OpenAI's chat completions.

        Settings as for `generate`. What earlier turns left in the cache is not read again.
        Errors: UnsupportedError (no chat template), TemplateError, and those of `generate`.
        """
        chosen = _chosen(sampling or self.sampling, temperature, top_k, top_p, min_p, seed)
        ids, grammar = self.prompt(messages), self.grammar(schema)
        request = Request(ids, chosen, max_tokens, stop, logprobs, grammar, self.reasoning(ids))
        if stream:
            return completion_chunks(self.name, self.answer(request), self.tokenizer)
        answers = generation.generate(self.scheduler, self.tokenizer, [request])
        return completion(self.name, answers, self.tokenizer)

    def forget(self) -> None:
        """Empty the cache of what no generation is using; changes speed and memory alone."""
        self.scheduler.forget()

    def grammar(self, schema: Schema | None) -> Grammar | None:
        """What holds answers to a JSON schema; errors as for `generate`."""
        return None if schema is None else json_schema(self.tokenizer, schema)

    def ids(self, prompt: Prompt) -> Sequence[int]:
        """The ids of a prompt: of a text, or those that are given; UsageError for unknown ones."""
        self._require_open()
        if isinstance(prompt, str):
            return self.tokenize(prompt)
        for token in prompt:
            if not 0 <= token < self.tokenizer.vocab_size:
                raise UsageError(
                    f"token {token} is not in the vocabulary; ids are below "
                    f"{self.tokenizer.vocab_size}."
                )
        return prompt

    def _with_bos(self, ids: list[int]) -> list[int]:
        bos = self.tokenizer.bos_id
        return [bos, *ids] if self.tokenizer.add_bos and bos is not None else ids

    def _spelled(self, token: int | None) -> str:
        if token is None:
            return ""
        return self.tokenizer.token_bytes(token).decode("utf-8", "replace")

    def _require_open(self) -> None:
        if self._closed:
            raise UsageError(f"{self.path}: the model is closed; load it again.")

    def _chat_template(self) -> ChatTemplate:
        if self._template is None:
            self._require_open()
            if not self.has_template:
                raise UnsupportedError(
                    f"{self.path}: the model has no chat template, so it only goes on from a text: "
                    "use generate or stream (trit run --no-cnv)."
                )
            self._template = ChatTemplate(cast(str, self.metadata[TEMPLATE_KEY]))
        return self._template

    def _close_template(self) -> None:
        if self._template is not None:
            self._template.close()
            self._template = None


def _is_prompt(prompt: Prompt | Batch) -> bool:
    return isinstance(prompt, str) or (len(prompt) > 0 and isinstance(prompt[0], int))


def _chosen(
    base: SamplerSettings,
    temperature: float | None,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    seed: int | None,
) -> SamplerSettings:
    """`base` with what was given."""
    return replace(
        base,
        temperature=base.temperature if temperature is None else temperature,
        top_k=base.top_k if top_k is None else top_k,
        top_p=base.top_p if top_p is None else top_p,
        min_p=base.min_p if min_p is None else min_p,
        seed=base.seed if seed is None else seed,
    )
