"""`trit merge`: the shards of a model as one GGUF."""

from pathlib import Path
from typing import Annotated

import typer

from trit.cli._options import DryRun, Json, Jsonl


def command(
    source: Annotated[Path, typer.Argument(metavar="SHARD.gguf", help="Any of the shards.")],
    out: Annotated[Path, typer.Argument(metavar="OUT.gguf", help="The file to write.")],
    dry_run: DryRun = False,
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Put the shards of a model together into one GGUF file.

    An existing OUT.gguf is replaced once the new file is complete; the shards stay.
    """
    from trit import shards
    from trit.cli._progress import Progress
    from trit.cli._terminal import counted, print_json, size

    with Progress(jsonl=jsonl) as progress:
        made = shards.merge(source, out, dry_run=dry_run, on_progress=progress)
    if json:
        print_json({"path": str(made.path), "tensors": made.tensors, "bytes": made.bytes})
    else:
        print(f"{made.path}: {counted(made.tensors, 'tensor')}, {size(made.bytes)}")
