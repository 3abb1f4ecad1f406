"""`trit eval`: perplexity on a text, facts, tasks; with a reference what a small model lost."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trit.cli._options import (
    CacheTypes,
    Json,
    Jsonl,
    ModelOption,
    Task,
    TaskData,
    TaskLimit,
    Threads,
    Windows,
    WindowTokens,
    cache_type,
    check_tasks,
)
from trit.errors import UsageError

if TYPE_CHECKING:
    from trit.evaluate import Estimate, Evaluation, Spread


def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Folder, GGUF file or model name.")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option("--text", "--file", "-f", metavar="FILE", help="UTF-8 text to read."),
    ] = None,
    model_option: ModelOption = None,
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="MODEL", help="Measure the divergence from it too."),
    ] = None,
    facts: Annotated[
        bool, typer.Option("--facts", help="Ask for facts: which the model knows, or forgot.")
    ] = False,
    task: Task = None,
    task_data: TaskData = None,
    limit: TaskLimit = None,
    ctx: WindowTokens = None,
    chunks: Windows = None,
    threads: Threads = None,
    cache: CacheTypes = None,
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Measure a model: perplexity, divergence, facts, tasks.

    Windows and scoring are those of llama.cpp's perplexity tool, so the figures can be compared.
    --facts, with a text or without: how often the model finds the true answer likelier than near
    misses, by category, and for rare and frequent facts; with a reference, what it forgot.
    --task hellaswag, arc_easy, arc_challenge, piqa, winogrande, lambada: accuracy as
    lm-evaluation-harness defines it, without examples, on files that you have.
    """
    from trit.cli._resolve import chosen, resolve
    from trit.cli._terminal import print_json
    from trit.cli.figures.facts import asked, facts_text
    from trit.cli.figures.tasks import answered, tasks_text

    name = chosen("eval", model, model_option)
    if text is None and not facts and task is None:
        raise UsageError(f"no text: trit eval {name} --text FILE, or --facts, or --task NAME")
    check_tasks(task, task_data, limit)
    if text is None and not (ctx is None and chunks is None):
        raise UsageError("--ctx and --chunks are about a text: add --text FILE")
    path = resolve(name, jsonl=jsonl)
    other = None if reference is None else resolve(reference, jsonl=jsonl)
    kept = cache_type(cache)
    answer: dict[str, Any] = {}
    parts = []
    if text is not None:
        result = _evaluated(path, text, other, ctx, chunks, threads, kept, jsonl)
        answer |= result.to_dict()
        parts.append(as_text(result))
    if facts:
        known = asked(path, other, threads, kept, jsonl)
        answer["facts"] = known.to_dict()
        parts.append(facts_text(known))
    if task is not None and task_data is not None:
        scores = answered(path, task, task_data, other, limit, threads, kept, jsonl)
        answer["tasks"] = scores.to_dict()
        parts.append(tasks_text(scores))
    if json:
        print_json(answer)
    else:
        print("\n\n".join(parts))


def _evaluated(
    path: Path,
    text: Path,
    reference: Path | None,
    ctx: int | None,
    chunks: int | None,
    threads: int | None,
    cache: str,
    jsonl: bool,
) -> "Evaluation":
    from trit.cli._windows import WindowProgress
    from trit.evaluate import evaluate

    progress = WindowProgress(jsonl=jsonl)
    try:
        limit = None if chunks == -1 else chunks
        window = 512 if ctx is None else ctx
        return evaluate(path, text, reference, window, limit, threads, progress, cache)
    finally:
        progress.end()


def as_text(result: "Evaluation") -> str:
    """The answer for people; probabilities in percent."""
    from trit.cli._terminal import counted, table

    found = result.divergence
    rows = [("PPL", _plus_minus(result.ppl))]
    if found is not None:
        rows += [
            ("PPL of the reference", _plus_minus(found.base)),
            ("ln(PPL ratio)", _plus_minus(found.ln_ratio, 5)),
            ("PPL ratio", _plus_minus(found.ratio, 5)),
            ("PPL difference", _plus_minus(found.difference, 5)),
        ]
        if found.correlation is not None:
            rows.append(("correlation of ln PPL", f"{100 * found.correlation:.2f}%"))
        rows += _distribution("KLD", found.kld, 1.0, "")
        rows += _distribution("Δp", found.delta_p, 100.0, "%")
        rows += [
            ("Δp RMS", _plus_minus(found.delta_p_rms, 3, 100.0, "%")),
            ("same top token", _plus_minus(found.same_top, 3, 100.0, "%")),
        ]
    against = "" if result.reference is None else f" against {result.reference}"
    return "\n".join(
        [
            f"{result.model}{against}",
            f"on {result.text.name} (sha256 {result.text.sha256[:16]}…): "
            f"{counted(result.chunks, 'window')} of {result.ctx}, "
            f"{counted(result.tokens, 'token')} scored",
            f"{result.isa}, {counted(result.threads, 'thread')}, {result.seconds:.1f} seconds",
            "",
            table(rows),
        ]
    )


def _plus_minus(value: "Estimate", digits: int = 4, factor: float = 1.0, unit: str = "") -> str:
    return f"{factor * value.mean:.{digits}f} ± {factor * value.stderr:.{digits}f}{unit}"


def _distribution(name: str, values: "Spread", factor: float, unit: str) -> list[tuple[str, str]]:
    digits = 3 if unit else 6

    def show(value: float) -> str:
        return f"{factor * value:.{digits}f}{unit}"

    mean = f"{factor * values.mean:.{digits}f} ± {factor * values.stderr:.{digits}f}{unit}"
    rows = [(f"{name} mean", mean), (f"{name} maximum", show(values.max))]
    for fraction, value in values.quantiles.items():
        place = "median" if fraction == 0.5 else f"{100 * fraction:g}%"
        rows.append((f"{name} {place}", show(value)))
    return [*rows, (f"{name} minimum", show(values.min))]
