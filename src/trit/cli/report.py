"""`trit report`: models beside each other as one page, and which of them to take."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trit.cli._options import (
    Json,
    Jsonl,
    Task,
    TaskData,
    TaskLimit,
    Threads,
    Windows,
    WindowTokens,
    check_tasks,
)

if TYPE_CHECKING:
    from trit.report import Report


def command(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Folders, GGUF files or model names.")
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", "--output-file", metavar="FILE", help=".html, .md or .json."),
    ] = Path("report.html"),
    reference: Annotated[
        str | None,
        typer.Option("--reference", metavar="MODEL", help="The floats that they were made from."),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            "--text", "--file", "-f", metavar="FILE", help="UTF-8 text; default: the card's own."
        ),
    ] = None,
    ctx: WindowTokens = None,
    chunks: Windows = None,
    task: Task = None,
    task_data: TaskData = None,
    limit: TaskLimit = None,
    n_prompt: Annotated[
        int, typer.Option("--n-prompt", "-p", min=0, metavar="N", help="Prompt timed; 0: none.")
    ] = 512,
    n_gen: Annotated[
        int, typer.Option("--n-gen", "-n", min=0, metavar="N", help="Tokens timed; 0: none.")
    ] = 128,
    rounds: Annotated[
        int, typer.Option("--rounds", "-r", min=1, metavar="N", help="Runs of each speed test.")
    ] = 3,
    markdown: Annotated[
        bool, typer.Option("--md", help="Markdown with its pictures beside FILE too.")
    ] = False,
    threads: Threads = None,
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Compare models on one page: size, quality, speed, bits.

    Measurements are kept beside the page, in NAME.measured.json: a report that was stopped goes on,
    and one of a file more measures that file. Speeds are taken in rounds, file after file.
    """
    from trit.cli._progress import Progress
    from trit.cli._resolve import resolve
    from trit.cli._terminal import note, print_json
    from trit.files.source import paths_of, refuse_overwrite
    from trit.report import check, report, write

    check_tasks(task, task_data, limit)
    targets = list(dict.fromkeys([out, *([out.with_suffix(".md")] if markdown else [])]))
    for target in targets:
        check(target)
    paths = [resolve(name, jsonl=jsonl) for name in models]
    base = None if reference is None else resolve(reference, jsonl=jsonl)
    opened = paths if base is None else [*paths, base]
    read = (*(file for path in opened for file in paths_of(path)), text, task_data)
    for target in targets:
        refuse_overwrite(target, read)
    with Progress(jsonl=jsonl, unit="step") as progress:
        found = report(
            paths,
            base,
            text,
            ctx=512 if ctx is None else ctx,
            chunks=None if chunks == -1 else chunks,
            prompt=n_prompt,
            generate=n_gen,
            rounds=rounds,
            tasks=() if task is None else task.split(","),
            task_data=task_data,
            limit=limit,
            threads=threads,
            notes=out.with_suffix(".measured.json"),
            command=shlex.join(["trit", "report", *_typed()]),
            on_cost=note,
            on_progress=progress,
        )
    for target in targets:
        for written in write(found, target):
            note(f"written: {written}")
    if json:
        print_json(found.to_dict())
    else:
        print(as_text(found))


def _typed() -> list[str]:
    """What stood behind `trit report`, with names of files without their folders."""
    words = sys.argv[sys.argv.index("report") + 1 :] if "report" in sys.argv else []
    return [_without_folder(word) for word in words]


def _without_folder(word: str) -> str:
    flag, equals, value = word.rpartition("=") if word.startswith("-") else ("", "", word)
    return flag + equals + (value if value.startswith("hf:") else Path(value).name or value)


def as_text(found: "Report") -> str:
    """What to take, and the figures, in 80 columns."""
    from trit.cli._terminal import size, table, wrapped

    rows = [("", "FILE", "SIZE", "BITS", "PPL", "KLD", "T/S")]
    for model in found.models:
        known = model.quality
        rates = [rate.median for rate in model.rates if rate.test.startswith("tg")]
        rows.append(
            (
                "->" if model.label == found.chosen else "",
                model.label if len(model.label) <= 30 else f"…{model.label[-29:]}",
                size(model.bytes),
                f"{model.bits_per_weight:.2f}",
                "?" if known is None else f"{known.ppl.mean:.3f}",
                "–" if known is None or known.kld is None else f"{known.kld.mean:.4f}",
                f"{rates[0]:.1f}" if rates else "?",
            )
        )
    return "\n".join(
        [*map(wrapped, found.words), "", table(rows, right=frozenset({2, 3, 4, 5, 6}))]
    )
