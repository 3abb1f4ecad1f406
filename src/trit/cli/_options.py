"""Flags that several commands have, each with one meaning and one wording."""

from pathlib import Path
from typing import Annotated

import typer

from trit.errors import UsageError
from trit.machine.processors import MAX_THREADS

Threads = Annotated[
    int | None,
    typer.Option(
        "--threads", "-t", min=1, max=MAX_THREADS, metavar="N", help="Default: all cores."
    ),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", "-m", metavar="MODEL", help="The same as MODEL.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
Jsonl = Annotated[bool, typer.Option("--jsonl", help="Progress as JSON lines.")]

# Of files that are written.
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print the size.")]
Pure = Annotated[bool, typer.Option("--pure", help="One type for all matrices.")]
MaxSize = Annotated[
    str | None,
    typer.Option("--max-size", "--split-max-size", metavar="SIZE", help="Shards of a size."),
]

# What a server listens at.
Host = Annotated[
    str, typer.Option("--host", metavar="ADDRESS", help="Beyond this machine: with a key only.")
]
Port = Annotated[int, typer.Option("--port", metavar="N", help="0: any that is free.")]

# Of a run that learns.
DryRunOfSteps = Annotated[
    bool, typer.Option("--dry-run", help="Prepare the folder, say what it will cost.")
]

# What a model is measured by: windows of a text, tasks.
WindowTokens = Annotated[
    int | None,
    typer.Option("--ctx", "--ctx-size", "-c", metavar="N", help="Tokens per window; default: 512."),
]
Windows = Annotated[
    int | None, typer.Option("--chunks", metavar="N", help="Windows to read; -1: all.")
]
Task = Annotated[
    str | None,
    typer.Option("--task", metavar="NAME,…", help="Tasks such as hellaswag,piqa,lambada."),
]
TaskData = Annotated[
    Path | None,
    typer.Option(
        "--task-data", metavar="DIR", help="Folder of NAME.jsonl files, or the file of one."
    ),
]
TaskLimit = Annotated[
    int | None, typer.Option("--limit", metavar="N", help="Questions of each task; all.")
]


def check_tasks(task: str | None, task_data: Path | None, limit: int | None) -> None:
    """UsageError for flags of tasks without tasks, or without their files."""
    if (task is None) != (task_data is None) or (task is None and limit is not None):
        raise UsageError("--task NAME, --task-data DIR and --limit go together")


# What is measured on a text, a layer at a time.
MeasuredText = Annotated[
    Path | None,
    typer.Option(
        "--text",
        "--file",
        "-f",
        metavar="FILE",
        help="UTF-8 text to measure on. Default: passages of trit's and what the model writes.",
    ),
]
ChunkTokens = Annotated[
    int | None,
    typer.Option(
        "--ctx", "--ctx-size", "-c", metavar="N", min=1, help="Tokens of a chunk; default: 512."
    ),
]
Chunks = Annotated[int, typer.Option("--chunks", metavar="N", help="Chunks to read; -1: all.")]
Exact = Annotated[
    bool, typer.Option("--exact", help="Do not round float weights to Q8_0 on the way: slow.")
]

# What a model is planned for.
Context = Annotated[
    int | None,
    typer.Option("--ctx", "--ctx-size", "-c", metavar="N", help="Context. Default: 4096."),
]
Ram = Annotated[
    str | None,
    typer.Option("--ram", metavar="SIZE", help="A machine of so much memory: 16GiB."),
]


def _list_devices(value: str | None) -> str | None:
    """`--device list` is all that is asked for, also without a model."""
    if value == "list":
        from trit.cli._terminal import table
        from trit.estimate import devices

        rows = [("NAME", "GIB", "GB/S", "FROM")]
        for each in devices().values():
            size, speed = str(each.memory >> 30), f"{each.bandwidth / 1e9:g}"
            rows.append((each.name, size, speed, each.source))
        print(table(rows, right=frozenset({1, 2})))
        raise typer.Exit
    return value


Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        metavar="NAME",
        help="A known device; 'list' names them.",
        is_eager=True,
        callback=_list_devices,
    ),
]
Measure = Annotated[
    bool,
    typer.Option("--measure/--no-measure", help="Measure the memory's bandwidth, once a boot."),
]

# How a model runs.
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size", "-b", min=1, metavar="N", help="Prompt tokens per pass; default: 64."
    ),
]
CacheTypes = Annotated[  # cache_type reads it
    list[str] | None,
    typer.Option(
        "--cache-type",
        "--cache-type-k",
        "--cache-type-v",
        "-ctk",
        "-ctv",
        metavar="f16|q8_0|f32",
        show_default=False,
        help="What keys and values alike are kept in; default: f16.",
    ),
]


def cache_type(given: list[str] | None) -> str:
    """The one type that was asked for; UsageError for two, since keys and values share one."""
    if len(set(given or ())) > 1:
        raise UsageError(
            f"--cache-type {' and '.join(given or ())}: keys and values are kept in one type."
        )
    return given[0] if given else "f16"


Repack = Annotated[
    bool | None,
    typer.Option(
        "--repack/--no-repack",
        help="Copy the weights into an order read faster; default: if memory allows.",
    ),
]

# What an answer is drawn by; what is not given is the model's own.
System = Annotated[
    str | None,
    typer.Option("--system", "--system-prompt", "-sys", metavar="TEXT", help="System message."),
]
Temp = Annotated[
    float | None, typer.Option("--temp", "--temperature", metavar="T", help="0: no chance.")
]
TopK = Annotated[
    int | None, typer.Option("--top-k", metavar="N", help="Only the likeliest N; 0: all.")
]
TopP = Annotated[
    float | None, typer.Option("--top-p", metavar="P", help="Only the likeliest, to this sum.")
]
MinP = Annotated[
    float | None,
    typer.Option("--min-p", metavar="P", help="Only those as likely as P times the best."),
]
RepeatPenalty = Annotated[
    float | None, typer.Option("--repeat-penalty", metavar="X", help="1: off.")
]
