"""`trit imatrix`: how strongly a model uses each column of its matrices, as importance data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trit.cli._options import (
    Chunks,
    ChunkTokens,
    Exact,
    Json,
    Jsonl,
    MeasuredText,
    ModelOption,
    Threads,
)
from trit.errors import UsageError

if TYPE_CHECKING:
    from trit.calibrate import Importance


def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Folder, GGUF file or model name.")
    ] = None,
    text: MeasuredText = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", "--output-file", metavar="OUT.gguf", help="File to write."),
    ] = None,
    model_option: ModelOption = None,
    ctx: ChunkTokens = None,
    chunks: Chunks = -1,
    process_output: Annotated[
        bool, typer.Option("--process-output", help="Measure the output matrix too.")
    ] = False,
    exact: Exact = False,
    gram: Annotated[
        Path | None,
        typer.Option("--gram", metavar="FILE", help="Write Gram matrices too; they are large."),
    ] = None,
    threads: Threads = None,
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Measure importance data; llama-quantize reads them, too.

    The whole text goes through one layer, then through the next, so the model may be larger than
    memory. An existing OUT.gguf is replaced once the new file is complete. Interrupted, the same
    command goes on where it stopped; it loses a minute, or a layer.
    """
    from trit.calibrate import imatrix
    from trit.cli._measuring import Measuring, remarks
    from trit.cli._resolve import chosen, resolve
    from trit.cli._terminal import note, print_json, warn

    name = chosen("imatrix", model, model_option)
    if out is None:
        raise UsageError(f"no output: trit imatrix {name} -o OUT.gguf")
    path = resolve(name, jsonl=jsonl)
    with Measuring(jsonl=jsonl) as progress:
        result = imatrix(
            path, out, text, ctx=ctx, chunks=None if chunks == -1 else chunks,
            output=process_output, exact=exact, gram=gram, threads=threads, on_progress=progress,
            said=note,
        )  # fmt: skip
    for remark in remarks(result):
        warn(remark)
    if json:
        print_json(result.to_dict())
    else:
        print(as_text(result))


def as_text(result: "Importance") -> str:
    """The answer for people."""
    from trit.cli._terminal import counted

    texts = "; ".join(f"{text.name} (sha256 {text.sha256[:16]}…)" for text in result.texts)
    lines = [
        f"{result.path}: importance data of {counted(result.entries, 'tensor')}",
        f"measured on {texts}: {counted(result.chunks, 'chunk')} of {result.ctx}, "
        f"{counted(result.tokens, 'token')}",
    ]
    if result.gram is not None:
        lines.append(f"{result.gram}: Gram matrices")
    took = f"{result.isa}, {counted(result.threads, 'thread')}, {result.seconds:.1f} seconds"
    if result.resumed:
        lines.append(f"from an interrupted run: {counted(result.resumed, 'layer')}")
    else:
        took += f" ({result.tokens / max(result.seconds, 1e-9):,.0f} tokens/s)"
    lines.append(took)
    return "\n".join(lines)
