"""Tasks for people: lm-evaluation-harness's table, and what changed from a reference."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trit.evaluate.tasks import Metric, TaskResult, TaskScores

HEAD = ("Tasks", "Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr")
RIGHT = (False, True, False, True, False, False, True, False, True)
VERSION = "1"  # of all these tasks, in lm-eval 0.4
HIDDEN = "acc_bytes"  # not in the harness's tables of these tasks: --json has it


def answered(
    path: Path,
    names: str,
    data: Path,
    reference: Path | None,
    limit: int | None,
    threads: int | None,
    cache: str,
    jsonl: bool,
) -> "TaskScores":
    """Ask, with the cost before and progress on stderr."""
    from trit.cli._progress import Progress
    from trit.cli._terminal import counted, note, warn
    from trit.evaluate.tasks import read_files, tasks

    wanted = names.split(",")
    count = sum(len(file.questions) for file in read_files(wanted, data, limit))
    models = "" if reference is None else " of two models"
    note(f"{counted(count, 'question')}{models}; the time is known after the first ones")
    with Progress(jsonl=jsonl, unit="question") as progress:
        found = tasks(path, wanted, data, reference, limit, threads, progress, cache)
    for result in found.results:
        if result.cut:
            warn(f"{result.task}: {counted(result.cut, 'context')} cut at the start to fit")
    return found


def tasks_text(scores: "TaskScores") -> str:
    """The answer for people."""
    from trit.cli._terminal import counted

    against = "" if scores.reference is None else f" against {scores.reference}"
    lines = [
        f"{scores.model}{against}",
        f"{scores.isa}, {counted(scores.threads, 'thread')}, {scores.seconds:.1f} seconds",
        *(_file_line(result) for result in scores.results),
        "",
        harness_table(scores.results),
    ]
    if scores.reference is not None:
        lines += ["", _changes(scores.results)]
    return "\n".join(lines)


def _file_line(result: "TaskResult") -> str:
    return (
        f"{result.task}: {result.questions:,} of {result.total:,} questions, "
        f"{Path(result.file).name} (sha256 {result.sha256[:16]}…)"
    )


def harness_table(results: Sequence["TaskResult"]) -> str:
    """lm-evaluation-harness's table, in Markdown."""
    rows = [
        [
            result.task if number == 0 else "",
            VERSION if number == 0 else "",
            "none",
            "0",
            metric.name,
            "↓" if metric.name == "perplexity" else "↑",
            f"{metric.value.mean:.4f}",
            "±",
            f"{metric.value.stderr:.4f}",
        ]
        for result in results
        for number, metric in enumerate(result.metrics)
        if metric.name != HIDDEN
    ]
    widths = [max(len(row[i]) for row in [HEAD, *rows]) for i in range(len(HEAD))]
    rule = ["-" * (width - right) + ":" * right for width, right in zip(widths, RIGHT, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, RIGHT, strict=True)
        ]
        return f"|{'|'.join(padded)}|"

    return "\n".join(map(line, [HEAD, rule, *rows]))


def _changes(results: Sequence["TaskResult"]) -> str:
    from trit.cli._terminal import table

    rows = [("CHANGE", "METRIC", "MODEL", "REF.", "CHANGE (95%)")]
    rows += [
        (result.task, metric.name, _value(metric, False), _value(metric, True), _change(metric))
        for result in results
        for metric in result.metrics
        if metric.name != HIDDEN
    ]
    return table(rows, right=frozenset({2, 3, 4}))


def _value(metric: "Metric", reference: bool) -> str:
    value = metric.reference if reference else metric.value
    assert value is not None
    return f"{value.mean:.2f}" if metric.name == "perplexity" else f"{100 * value.mean:.2f}%"


def _change(metric: "Metric") -> str:
    """Points of an accuracy; of a perplexity how many times the reference's."""
    assert metric.change is not None
    parts = metric.change.value, metric.change.low, metric.change.high
    if metric.name == "perplexity":
        return "×{:.3f} ({:.3f} … {:.3f})".format(*parts)
    return "{:+.2f} ({:+.2f} … {:+.2f})".format(*(100 * part for part in parts))
