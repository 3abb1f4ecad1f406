"""One answer: streamed to stdout, or printed as JSON; what it took on stderr."""

from trit.cli._terminal import print_json, table
from trit.cli.chat.answer import Shown
from trit.cli.chat.screen import Screen
from trit.cli.chat.settings import SHOWN, Asked, described
from trit.cli.chat.stats import Memory, seconds_since_start, speeds
from trit.errors import UsageError
from trit.runtime.generate import Chunk, Generation, Request, join, with_seed
from trit.runtime.model import Model
from trit.runtime.sample import SamplerSettings


def answer_once(model: Model, asked: Asked, text: str, screen: Screen, *, json: bool) -> None:
    """Answer `text`."""
    sampling = with_seed(asked.sampling(model.sampling))
    screen.note(f"sampling: {described(sampling)}")
    request = _request(model, asked, sampling, text, screen)
    chunks: list[Chunk] = []
    think, markdown = None if asked.think == "off" else asked.think, asked.schema is None
    shown = None if json else Shown(screen, think, markdown=markdown)
    first = 0.0
    try:
        for chunk in model.answer(request):
            first = first or seconds_since_start()
            chunks.append(chunk)
            if shown is not None:
                shown.push(chunk)
    finally:
        if shown is not None:
            shown.finish()  # also before the word about an interruption
    ended = seconds_since_start()
    answer = join(chunks, request)
    memory = Memory.now(model)
    if json:
        print_json(_as_json(model, answer, request, memory, first))
    _report(model, answer, memory, first, ended, screen)


def _request(
    model: Model, asked: Asked, sampling: SamplerSettings, text: str, screen: Screen
) -> Request:
    """By the chat template where there is one, else the bare text."""
    grammar = model.grammar(asked.schema)
    if not _templated(model, asked, screen):
        ids = model.tokenize(text)
        return Request(ids, sampling, asked.max_tokens, asked.stop, grammar=grammar)
    messages = [] if asked.system is None else [{"role": "system", "content": asked.system}]
    said = [*messages, {"role": "user", "content": text}]
    ids = model.prompt(said, thinking=asked.thinking)
    return Request(
        ids, sampling, asked.max_tokens, asked.stop, grammar=grammar,
        reasoning=model.reasoning(ids),
    )  # fmt: skip


def _templated(model: Model, asked: Asked, screen: Screen) -> bool:
    if asked.conversation is not None:
        return asked.conversation
    if not model.has_template:
        if asked.system is not None:
            raise UsageError(f"{model.path}: no chat template, which --system needs.")
        screen.note("the model has no chat template: it goes on from the bare text")
    return model.has_template


def _report(
    model: Model, answer: Generation, memory: Memory, first: float, ended: float, screen: Screen
) -> None:
    stats = answer.stats
    if answer.finish_reason == "length" and stats.prompt_tokens + stats.tokens > model.ctx:
        screen.note(f"stopped: the context of {model.ctx} tokens is full (-c makes it larger)")
    rows = [
        *speeds(stats),
        ("first token", f"{first:.2f} s after the process was started, {ended:.2f} s in all"),
        *memory.rows(),
    ]
    screen.note(table(rows))


def _as_json(
    model: Model, answer: Generation, request: Request, memory: Memory, first: float
) -> dict[str, object]:
    stats = answer.stats
    return {
        "model": str(model.path),
        "text": answer.text,
        "reasoning": answer.reasoning or None,
        "finish_reason": answer.finish_reason,
        "tokens": stats.tokens,
        "reasoning_tokens": stats.reasoning_tokens,
        "prompt_tokens": stats.prompt_tokens,
        "prompt_tps": stats.prompt_tps,
        "generation_tps": stats.generation_tps,
        "drafted_tokens": stats.drafted_tokens,
        "accepted_tokens": stats.accepted_tokens,
        "first_token_seconds": round(first, 3),
        "threads": model.engine.threads,
        "isa": model.engine.isa,
        "ctx": model.ctx,
        "weight_bytes": memory.weights,
        "cache_bytes": memory.cache,
        "resident_bytes": memory.resident,
        "predicted_memory_bytes": memory.predicted,
        "actual_memory_bytes": memory.actual,
        "seed": answer.seed,
        "sampling": {
            label.replace("-", "_"): getattr(request.sampling, name)
            for label, name in SHOWN.items()
        },
    }
