"""What `convert` and `quantize` say: the cost before, the progress during, the result after."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trit.cli._progress import Progress
from trit.cli._terminal import counted, note, print_json, size, table, warn
from trit.convert import ConvertResult, Job
from trit.errors import UsageError

_BLOCK = re.compile(r"^blk\.\d+\.")


def carry_out(
    job: Job,
    *,
    dry_run: bool,
    json: bool,
    jsonl: bool,
    card: bool = False,
    threads: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Run a prepared job, or only say what it would make; `card`: measure it on `threads`.

    more   for the JSON
    """
    planned = job.result()
    for text in job.warnings:
        warn(text)
    for text in fallbacks(planned):
        note(text)
    if dry_run:
        result = planned
    else:
        if job.out is None:
            raise UsageError("no output: name the file to write, or use --dry-run")
        job.check_target()
        if job.discards:
            warn(
                f"{job.partial} is of another job (other settings, threads, source or trit): "
                "it is begun anew"
            )
        _announce(job, planned)
        result = _run(job, jsonl)
    measured = None
    if card and not dry_run:
        from trit.cli.figures.card import fill

        measured = fill(Path(job.out or ""), job.source.path, threads, jsonl)
    if json:
        answer = as_json(result, dry_run) | dict(more or {})
        print_json(answer | ({"card": measured.to_dict()} if measured else {}))
        return
    print(as_text(result, dry_run))
    if measured:
        from trit.cli.figures.card import card_rows

        print(table(card_rows(measured.to_dict())))


def fallbacks(result: ConvertResult) -> list[str]:
    """A line per kind of tensor whose rows did not fit the format wished for."""
    kinds: dict[tuple[str, int, str, str], int] = {}
    for tensor in result.fallbacks:
        name = _BLOCK.sub("blk.*.", tensor.name)
        key = (name, tensor.shape[-1], str(tensor.fallback_from), tensor.format)
        kinds[key] = kinds.get(key, 0) + 1
    return [
        f"fallback: {name}{f' ({count} tensors)' if count > 1 else ''}: "
        f"rows of {columns} do not fit {wished.upper()}, {got.upper()} instead"
        for (name, columns, wished, got), count in kinds.items()
    ]


def _announce(job: Job, planned: ConvertResult) -> None:
    seconds = job.estimate_seconds()
    about = f"about {seconds:.0f} seconds" if seconds < 90 else f"about {seconds / 60:.0f} minutes"
    if seconds < 1.5:
        about = "about a second"
    decoded = " decoded" if job.source.decoded_from else ""
    note(
        f"{job.source.path} ({size(planned.source_bytes)}{decoded}) -> {_target(job, planned)} "
        f"({size(planned.bytes)}, "
        f"{planned.type}, {planned.bits_per_weight:.2f} bits per weight), {about}"
    )
    if job.replaces:
        note(f"{job.out} exists: it stays until the new file is complete, then is replaced")


def _target(job: Job, planned: ConvertResult) -> str:
    if not planned.shards:
        return str(job.out)
    return f"{planned.path} and so on, {counted(len(planned.shards), 'shard')}"


def _run(job: Job, jsonl: bool) -> ConvertResult:
    with Progress(jsonl=jsonl) as progress:
        try:
            return job.run(progress)
        except KeyboardInterrupt:
            progress.__exit__(None, None, None)
            if job.partial.exists():
                note(f"what is done is kept in {job.partial}; the same command goes on from there")
            raise


def as_json(result: ConvertResult, dry_run: bool) -> dict[str, Any]:
    """What `--json` prints of a file that was written, or would be."""
    return {
        "path": None if dry_run else str(result.path),
        "shards": [] if dry_run else [str(path) for path in result.shards],
        "type": result.type,
        "dry_run": dry_run,
        "bytes": result.bytes,
        "tensor_bytes": result.tensor_bytes,
        "source_bytes": result.source_bytes,
        "parameters": result.weights,
        "bits_per_weight": round(result.bits_per_weight, 4),
        "importance_tensors": result.weighted,
        "resumed_tensors": result.resumed,
        "seconds": round(result.seconds, 3),
        "warnings": list(result.warnings),
        "fallbacks": [
            {"name": tensor.name, "from": tensor.fallback_from, "to": tensor.format}
            for tensor in result.fallbacks
        ],
        "tensors": [
            {
                "name": tensor.name,
                "type": tensor.format,
                "shape": list(tensor.shape),
                "bytes": tensor.bytes,
                "source_type": tensor.source,
            }
            for tensor in result.tensors
        ],
    }


def as_text(result: ConvertResult, dry_run: bool) -> str:
    """The same for people: type and size, then a line per format."""
    sums: dict[str, tuple[int, int]] = {}
    for tensor in result.tensors:
        count, total = sums.get(tensor.format, (0, 0))
        sums[tensor.format] = (count + 1, total + tensor.bytes)
    rows = [
        (name.upper(), counted(count, "tensor"), size(total))
        for name, (count, total) in sorted(sums.items(), key=lambda item: -item[1][1])
    ]
    done = f"{result.path}: " if not dry_run else ""
    lines = [
        f"{done}{result.type}, {result.bytes:,} bytes ({size(result.bytes)}), "
        f"{result.bits_per_weight:.2f} bits per weight",
        table(rows, right=frozenset({1, 2})),
    ]
    if result.weighted:
        lines.append(f"importance data used for {counted(result.weighted, 'tensor')}")
    if result.shards:
        lines.append(f"in {counted(len(result.shards), 'shard')}")
    if result.resumed:
        lines.append(f"from an interrupted run: {counted(result.resumed, 'tensor')}")
    if not dry_run:
        lines.append(f"{result.seconds:.1f} seconds")
    return "\n".join(lines)
