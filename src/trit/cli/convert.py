"""`trit convert`: a Hugging Face folder, or a quantized GGUF, to a GGUF of plain numbers."""

from pathlib import Path
from typing import Annotated

import typer

from trit.cli._options import DryRun, Json, Jsonl, MaxSize, Threads


def command(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder, GGUF file or model name.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", "--outfile", metavar="OUT.gguf", help="The file to write."),
    ] = None,
    type_: Annotated[
        str,
        typer.Option("--type", "--outtype", help="f16, bf16, f32, q8_0, or auto."),
    ] = "f16",
    threads: Threads = None,
    max_size: MaxSize = None,
    dry_run: DryRun = False,
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Convert a Hugging Face folder, or a quantized GGUF, to a GGUF.

    An existing OUT.gguf is replaced once the new file is complete. Interrupted, the same command
    goes on where it stopped. With --max-size, shards OUT-00001-of-0000N.gguf as 'trit split' cuts
    them, which replace nothing.
    """
    from trit.cli._resolve import resolve
    from trit.cli.writing.job import carry_out
    from trit.convert import prepare_convert

    path = resolve(source, jsonl=jsonl)
    with prepare_convert(path, out, type_, threads=threads) as job:
        if max_size is not None:
            job.shard(max_size)
        carry_out(job, dry_run=dry_run, json=json, jsonl=jsonl)
