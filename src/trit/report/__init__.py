"""A report on models: what each is, loses and gives, beside each other, and which one to take.

    found = report(["q8.gguf", "q4.gguf"], reference="f16.gguf", text=Path("wiki.txt"))
    write(found, Path("report.html"))

Sizes, perplexity and KL divergence of a text, accuracy on tasks, tokens per second, the bits of
every tensor, the machine, and a choice by the rule of `recommend`. Measurements are kept in notes
beside the report, so that one that was killed goes on, and one with a model more measures that one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import takewhile
from pathlib import Path

from trit import zoo
from trit.doctor import doctor
from trit.errors import UsageError
from trit.evaluate import card
from trit.evaluate._text import read_text
from trit.evaluate.speed import speed_tests
from trit.evaluate.tasks import read_files
from trit.files import checkpoint
from trit.machine.processors import default_threads
from trit.report._choice import choose, labels
from trit.report._figures import Figures, Quality, Rate, Report, TextRead
from trit.report._header import described, own_card
from trit.report._measure import Measuring, Settings, with_card
from trit.report._notes import Notes
from trit.report._shelf import zoo_page
from trit.report._write import ENDINGS, check, write

__all__ = [
    "ENDINGS",
    "Figures",
    "Quality",
    "Rate",
    "Report",
    "check",
    "report",
    "write",
    "zoo_page",
]

PathLike = str | os.PathLike[str]
CARD_TEXT = "the text of trit's quality card"


def report(
    models: PathLike | Sequence[PathLike],
    reference: PathLike | None = None,
    text: PathLike | None = None,
    *,
    ctx: int = 512,
    chunks: int | None = None,
    prompt: int = 512,
    generate: int = 128,
    rounds: int = 3,
    tasks: Sequence[str] = (),
    task_data: PathLike | None = None,
    limit: int | None = None,
    threads: int | None = None,
    notes: Path | None = None,
    command: str = "",
    on_cost: Callable[[str], None] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Measure models, and a reference, which is reported on as well.

    models, reference   as for `evaluate`
    text       a str is the text itself, a path object a file of UTF-8; None: the quality card's
    ctx, chunks   tokens of a window; windows read, None: all
    prompt, generate   tokens of the speed tests, 0: none; each is run once in each of `rounds`,
               the models one after another, after a warm-up
    tasks, task_data, limit   as for `evaluate.tasks.tasks`
    notes      a file to keep measurements in, and to find them; None: nothing is kept
    command    what was typed, to be told
    on_cost    called with what is left to do, before it is done
    on_progress   called with (what, done, total)
    Errors as for `evaluate`, `bench` and `tasks`; InvalidFileError for a file of other notes.
    """
    names = [models] if isinstance(models, str | os.PathLike) else list(models)
    if not names:
        raise UsageError("no model to report on.")
    if rounds < 1:
        raise UsageError(f"-r {rounds}: at least one round is needed.")
    if (not tasks) != (task_data is None):
        raise UsageError("tasks and the folder of their files go together.")
    paths = [zoo.resolve(os.fspath(name)) for name in names]
    base = None if reference is None else zoo.resolve(os.fspath(reference))
    paths = _distinct(paths if base is None else [base, *paths])
    content, about = card.held_out() if text is None else _read(text)
    settings = Settings(
        content=content,
        text_sha256=about,
        ctx=ctx,
        chunks=chunks,
        tests=() if not prompt and not generate else tuple(speed_tests([prompt], [generate])),
        rounds=rounds,
        files=() if task_data is None else tuple(read_files(tasks, task_data, limit)),
        threads=threads,
    )
    measuring = Measuring(settings, Notes(notes), base, on_progress)
    if on_cost is not None:
        on_cost(_cost(paths, measuring, settings))
    found = _measured(paths, base, measuring)
    words, chosen = choose(found)
    return Report(
        title=_title(found),
        words=words,
        chosen=chosen,
        models=tuple(found),
        reference=next((each.label for each in found if each.is_reference), None),
        text=TextRead(
            CARD_TEXT if text is None else "a text" if isinstance(text, str) else Path(text).name,
            about, len(content.encode()), ctx, chunks,
        ),
        machine=doctor(),
        threads=threads or default_threads(),
        rounds=rounds,
        written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        command=command,
    )  # fmt: skip


def _read(text: PathLike) -> tuple[str, str]:
    content, about = read_text(text)
    return content, about.sha256


def _distinct(paths: Sequence[Path]) -> list[Path]:
    """Each model once, in order."""
    found: list[Path] = []
    for path in paths:
        if not any(path.samefile(known) for known in found):
            found.append(path)
    return found


def _cost(paths: Sequence[Path], measuring: Measuring, settings: Settings) -> str:
    texts, questions, runs = measuring.left(paths)
    size = sum(_bytes(path) for path in paths)
    return (
        f"models: {len(paths)}, {size / 2**20:,.0f} MiB; to be measured: {texts} readings of the "
        f"text in windows of {settings.ctx}, {questions:,} questions, {runs} runs for speed"
    )


def _bytes(path: Path) -> int:
    with checkpoint.open(path) as file:
        return sum(tensor.nbytes for tensor in file.tensors.values())


def _measured(paths: Sequence[Path], base: Path | None, measuring: Measuring) -> list[Figures]:
    """Speed last: it wants the machine for itself, and can be asked for on its own later."""
    quality = {path: measuring.quality(path) for path in paths}
    tasks = {path: measuring.tasks(path) for path in paths}
    measuring.speeds(paths)
    found = [
        replace(
            described(path, label),
            is_reference=base is not None and path.samefile(base),
            quality=with_card(quality[path], own_card(path)),
            rates=measuring.rates(path),
            memory=measuring.memory(path),
            busy=measuring.busy(path),
            tasks=tasks[path],
            measured_at=measuring.when(path),
        )
        for path, label in zip(paths, labels(paths), strict=True)
    ]
    return sorted(found, key=lambda each: each.bytes)


def _title(models: Sequence[Figures]) -> str:
    names = [each.label for each in models]
    first, last = min(names), max(names)  # what these two begin with, all do
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    common = "".join(letter for letter, _ in pairs).rstrip("-_. ")
    return common if len(common) > 3 else ", ".join(names)
