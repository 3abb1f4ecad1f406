"""`trit split`: a GGUF cut into shards that other tools load too."""

from pathlib import Path
from typing import Annotated

import typer

from trit.cli._options import Json, Jsonl


def command(
    source: Annotated[Path, typer.Argument(metavar="MODEL.gguf", help="The file to cut.")],
    prefix: Annotated[
        Path | None,
        typer.Argument(metavar="PREFIX", help="Shards are PREFIX-00001-of-0000N.gguf."),
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", "--split-max-size", metavar="SIZE", help="Such as 2G, 4GiB."),
    ] = None,
    max_tensors: Annotated[
        int | None,
        typer.Option("--max-tensors", "--split-max-tensors", min=1, help="Tensors of a shard."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the shards.")] = False,
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Cut a GGUF file into shards of a size; 'trit merge' undoes it.

    No shard is larger than asked for, and all are there at the end, or none.
    """
    from trit import shards
    from trit.cli._progress import Progress
    from trit.cli._terminal import print_json, size, table
    from trit.errors import UsageError
    from trit.sizes import parse_size

    if max_size is None and max_tensors is None:
        raise UsageError(f"how large? trit split {source} --max-size 2G, or --max-tensors 128")
    with Progress(jsonl=jsonl) as progress:
        made = shards.split(
            source,
            prefix or source.with_name(source.name.removesuffix(".gguf")),
            max_bytes=None if max_size is None else parse_size(max_size, "--max-size"),
            max_tensors=max_tensors,
            dry_run=dry_run,
            on_progress=progress,
        )
    if json:
        print_json([{"path": str(s.path), "tensors": s.tensors, "bytes": s.bytes} for s in made])
    else:
        rows = [(str(s.path), f"{s.tensors} tensors", size(s.bytes)) for s in made]
        print(table(rows, right=frozenset({1, 2})))
