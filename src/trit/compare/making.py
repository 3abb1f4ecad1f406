"""Makes the answers of a study: each model answers all prompts it has not answered yet.

All models draw with the same numbers: the seed of an answer depends on study and prompt alone, so
two files that predict the same write the same. Answers are kept a batch at a time; which batch they
were in changes nothing but their seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from trit.compare.store import Store
from trit.compare.study import Answer, Draw, ModelRow, Settings
from trit.errors import DoesNotFitError, TritError
from trit.files.source import open_source, source_sha256
from trit.runtime import generate as generation
from trit.runtime.generate import Chunk, PromptTooLongError, Request
from trit.runtime.model import Model, load

TOGETHER = 8  # answers of a batch
_DRAWS = 1_000_003  # between the seeds of one prompt's answers


@dataclass(frozen=True)
class Making:
    """How far a study's answers are: `done` of `total` answers and `tokens` of theirs, by now;
    `most_tokens` is what all that are missing may have."""

    model: str
    done: int
    total: int
    tokens: int
    most_tokens: int


OnProgress = Callable[[Making], None]


def describe(path: Path, name: str, id: int = 0) -> ModelRow:
    """A model's file or folder, read from end to end for its hash."""
    source = open_source(path)
    with closing(source):
        sizes: dict[str, int] = {}
        for tensor in source.tensors.values():
            sizes[tensor.format.name] = sizes.get(tensor.format.name, 0) + tensor.nbytes
        recipe = source.metadata.get("trit.recipe")
        return ModelRow(
            id=id,
            name=name,
            path=os.fspath(path.resolve()),
            bytes=sum(file.stat().st_size for file in source.paths),
            sha256=source.sha256(),
            type=max(sizes, key=sizes.__getitem__, default=""),
            recipe=recipe if isinstance(recipe, str) else None,
        )


def make(store: Store, threads: int | None = None, on_progress: OnProgress | None = None) -> None:
    """Write what is missing. TritError where a model's file is no longer the one that the study
    began with; errors of `trit.load` and of generating."""
    missing, tokens = store.missing(), 0
    total = len(store.wanted())
    done = total - len(missing)
    most = len(missing) * store.settings.max_tokens

    def report(name: str) -> None:
        if on_progress is not None:
            on_progress(Making(name, done, total, tokens, most))

    for model in store.models:
        own = [(draw, prompt) for draw, prompt in missing if draw[0] == model.id]
        if not own:
            continue
        report(model.name)
        require_same(model)
        with load(model.path, store.settings.ctx, threads, parallel=TOGETHER) as opened:
            for batch in _batches(own):
                answers = answer(opened, batch, store.prompts(), store.settings)
                store.add_answers(answers)
                done, tokens = done + len(answers), tokens + sum(a.tokens for a in answers)
                report(model.name)


def answer(
    model: Model,
    wanted: Sequence[tuple[Draw, int]],
    prompts: Mapping[int, str],
    settings: Settings,
    watch: Callable[[], None] = lambda: None,
) -> list[Answer]:
    """A batch of answers, decoded together, in the order of `wanted`. `watch` is called with every
    token; what it raises ends them all."""
    requests = [_request(model, draw, prompt, prompts, settings) for draw, prompt in wanted]
    chunks: list[list[Chunk]] = [[] for _ in requests]
    with closing(generation.stream(model.scheduler, model.tokenizer, requests)) as coming:
        for chunk in coming:
            watch()
            chunks[chunk.index].append(chunk)
    written = [generation.join(own, one) for own, one in zip(chunks, requests, strict=True)]
    return [
        Answer(
            draw=draw,
            prompt=prompt,
            text=one.text,
            tokens=one.stats.tokens,
            finish_reason=one.finish_reason,
            seed=one.seed,
            prompt_tokens=one.stats.prompt_tokens,
            prompt_seconds=one.stats.prompt_seconds,
            generation_seconds=one.stats.generation_seconds,
            isa=model.engine.isa,
            threads=model.engine.threads,
        )
        for (draw, prompt), one in zip(wanted, written, strict=True)
    ]


def _request(
    model: Model, draw: Draw, prompt: int, prompts: Mapping[int, str], settings: Settings
) -> Request:
    sampling = replace(settings.sampling, seed=seed(settings, draw, prompt))
    asked = ids(model, prompts[prompt], settings.system)
    thoughts = model.reasoning(asked) if model.has_template else None  # are no part of an answer
    request = Request(asked, sampling, settings.max_tokens, reasoning=thoughts)
    try:
        generation.require_room(model.engine, request)
    except PromptTooLongError as error:
        raise DoesNotFitError(f"prompt {prompt} of the study: {error}") from None
    return request


def ids(model: Model, prompt: str, system: str | None) -> Sequence[int]:
    """A prompt in tokens, by the chat template where the model has one."""
    if not model.has_template:
        return model.tokenize(prompt)
    return model.prompt(messages(prompt, system))


def messages(prompt: str, system: str | None) -> list[dict[str, str]]:
    """A conversation of one question."""
    before = [] if system is None else [{"role": "system", "content": system}]
    return [*before, {"role": "user", "content": prompt}]


def seed(settings: Settings, draw: Draw, prompt: int) -> int:
    """Of an answer; the same for all models."""
    return settings.seed + prompt + _DRAWS * draw[1]


def _batches(wanted: Sequence[tuple[Draw, int]]) -> Iterator[Sequence[tuple[Draw, int]]]:
    for start in range(0, len(wanted), TOGETHER):
        yield wanted[start : start + TOGETHER]


def require_same(model: ModelRow, watch: Callable[[], None] = lambda: None) -> None:
    """TritError where a model's file is no longer the one that the study began with. `watch` is
    called while it is read."""
    found = source_sha256(model.path, lambda done, total: watch())
    if found != model.sha256:
        raise TritError(
            f"{model.path}: it is another file than when the study began (sha256 {found[:16]}…, "
            f"then {model.sha256[:16]}…). Put that one back, or begin another study (-o)."
        )
