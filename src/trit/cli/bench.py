"""`trit bench`: tokens per second by llama-bench's tests, beside the limits of the machine."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from trit.cli._options import CacheTypes, Json, Jsonl, ModelOption, cache_type
from trit.errors import UsageError

if TYPE_CHECKING:
    from trit.evaluate.speed import Speed

# llama-bench's columns and their widths; negative: flush left.
WIDTHS = (
    ("model", -30),
    ("size", 10),
    ("params", 10),
    ("backend", -10),
    ("threads", 7),
    ("test", 15),
    ("t/s", 20),
)


def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Folder, GGUF file or model name.")
    ] = None,
    model_option: ModelOption = None,
    n_prompt: Annotated[
        str, typer.Option("--n-prompt", "-p", metavar="N,…", help="Prompt lengths; 0: none.")
    ] = "512",
    n_gen: Annotated[
        str, typer.Option("--n-gen", "-n", metavar="N,…", help="Tokens to generate; 0: none.")
    ] = "128",
    n_depth: Annotated[
        str, typer.Option("--n-depth", "-d", metavar="N,…", help="Tokens in the context before.")
    ] = "0",
    threads: Annotated[
        str | None, typer.Option("--threads", "-t", metavar="N,…", help="Default: all cores.")
    ] = None,
    repetitions: Annotated[
        int, typer.Option("--repetitions", "-r", min=1, metavar="N", help="Runs of each test.")
    ] = 5,
    limits: Annotated[
        bool, typer.Option("--limits/--no-limits", help="Measure the machine's limits too.")
    ] = True,
    energy: Annotated[
        bool, typer.Option("--energy", help="Joules per token: modelled, and measured by RAPL.")
    ] = False,
    energy_seconds: Annotated[
        float | None,
        typer.Option(
            "--energy-seconds", metavar="S", help="To idle, and to repeat each test for: 120."
        ),
    ] = None,
    cache: CacheTypes = None,
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Measure tokens per second: prompts (pp) and generation (tg).

    Every length is one test, at every depth and number of threads, after a warm-up run.
    --energy models joules per token from operations and bytes, and measures them where the
    processor's counters can be read: idle first, then every test again for two minutes.
    """
    from trit.cli._progress import Progress
    from trit.cli._resolve import chosen, resolve
    from trit.cli._terminal import counted, note, print_json
    from trit.cli.figures.energy import announced, consumed, energy_text
    from trit.errors import UsageError
    from trit.evaluate.energy import SECONDS, check_seconds
    from trit.evaluate.speed import bench, speed_tests

    name = chosen("bench", model, model_option)
    tests = speed_tests(numbers("-p", n_prompt), numbers("-n", n_gen), numbers("-d", n_depth))
    counts = None if threads is None else numbers("-t", threads)
    if energy_seconds is not None and not energy:
        raise UsageError("--energy-seconds: add --energy.")
    seconds = SECONDS if energy_seconds is None else energy_seconds
    check_seconds(seconds)
    path = resolve(name, jsonl=jsonl)
    total = len(tests) * len(counts or [0])
    note(
        f"{counted(total, 'test')}, {counted(repetitions, 'run')} of each after a warm-up"
        f"{', and 2 seconds with up to 1 GiB for the limits' if limits else ''}"
    )
    results = []
    with Progress(jsonl=jsonl, unit="run") as progress:
        kind = cache_type(cache)
        for result in bench(path, tests, counts, repetitions, limits, progress, kind):
            results.append(result)
            if not json:
                progress.__exit__(None, None, None)  # the bar makes room for the table
                print(*([header()] if len(results) == 1 else []), row(result), sep="\n", flush=True)
    taken = []
    if energy:
        announced(total, seconds)
        taken = consumed(path, tests, counts, seconds, kind, jsonl)
    if json:
        rows = [result.to_dict() for result in results]
        for answer, each in zip(rows, taken, strict=False):
            answer["energy"] = each.to_dict()
        print_json(rows)
    else:
        print(footer(results))
        if taken:
            print("", energy_text(taken), sep="\n")


def numbers(flag: str, text: str) -> list[int]:
    """'512,1024' -> [512, 1024]; UsageError for anything else."""
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"{flag} {text}: expected whole numbers such as 512 or 1,2") from None
    return found


def header() -> str:
    """The table's two first lines, as llama-bench prints them."""
    names = _line([name for name, _ in WIDTHS])
    rules = [f"{'-' * (abs(w) - 1)}{':' if w > 0 else '-'}" for _, w in WIDTHS]
    return f"{names}\n{_line(rules)}"


def row(result: "Speed") -> str:
    """One line of the table."""
    size, count = result.model.bytes, result.model.parameters
    cells = [
        result.model.type,
        f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:.2f} MiB",
        f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M",
        "CPU",
        str(result.threads),
        result.test.label,
        f"{result.ts:.2f} ± {result.ts_spread:.2f}",
    ]
    return _line(cells)


def _line(cells: Sequence[str]) -> str:
    padded = [
        cell.rjust(width) if width > 0 else cell.ljust(-width)
        for cell, (_, width) in zip(cells, WIDTHS, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


def footer(results: Sequence["Speed"]) -> str:
    """The machine, its limits, and how much of them each test reached."""
    from trit.cli._terminal import counted

    first = results[0]
    path = f", ternary products by {first.ternary}" if first.ternary else ""
    lines = ["", f"trit {first.commit} on {first.cpu}, {first.isa}{path}"]
    for measured in dict.fromkeys(result.limits for result in results):
        if measured is None:
            continue
        lines.append(
            f"limits with {counted(measured.threads, 'thread')}: memory read at "
            f"{measured.read_bytes_per_second / 1e9:.1f} GB/s, int8 products at "
            f"{measured.int8_ops_per_second / 1e9:.0f} Gop/s"
        )
    for result in results:
        if result.share is not None:
            limit = "memory" if result.test.generate else "int8"
            lines.append(
                f"  {result.test.label}, {counted(result.threads, 'thread')}: "
                f"{100 * result.share:.0f}% of the {limit} limit"
            )
    return "\n".join(lines)
