"""`trit neurons`: which neurons of a model stay dark, and a model without the darkest."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    from trit.neurons import Neurons, Pruned


def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Folder, GGUF file or model name.")
    ] = None,
    text: MeasuredText = None,
    model_option: ModelOption = None,
    ctx: ChunkTokens = None,
    chunks: Chunks = -1,
    exact: Exact = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the curves, .svg or .png.")
    ] = None,
    each: Annotated[
        Path | None,
        typer.Option("--each", metavar="FILE", help="Write a line of TSV for every neuron."),
    ] = None,
    prune: Annotated[
        float | None,
        typer.Option(
            "--prune", metavar="SHARE", help="Write a model without the darkest: 0.2 for 20%."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", "--output-file", metavar="OUT.gguf", help="The pruned model."),
    ] = None,
    multiple: Annotated[
        int | None,
        typer.Option(
            "--multiple",
            metavar="N",
            min=1,
            help="Keep a multiple of N neurons. Default: what ffn_down's type needs; floats: 32.",
        ),
    ] = None,
    eval_text: Annotated[
        Path | None,
        typer.Option(
            "--eval-text",
            metavar="FILE",
            help="Text to measure the pruned model on. Default: that of the quality card.",
        ),
    ] = None,
    threads: Threads = None,
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Measure how often neurons fire, and how few carry the output.

    What firing means is a matter of a threshold: several are asked, and the last line says by which
    of them "80% rarely activate" is true of this model. Energies of neurons leave out cross terms.

    --prune removes the same number of neurons from each layer, those of the least energy with every
    token counted alike, and measures how far the new model is from the old one. Rows of ffn_gate
    and ffn_up are copied; ffn_down of a quantized model is rounded a second time.
    """
    from trit import pictures
    from trit.cli._resolve import chosen, resolve
    from trit.cli._terminal import note, print_json, warn
    from trit.cli.figures.neurons import neurons_text, pruned_text
    from trit.files.source import paths_of, refuse_overwrite
    from trit.neurons import draw, write_each

    name = chosen("neurons", model, model_option)
    if plot is not None:
        pictures.check(plot, "--plot")
    if each is not None and not each.parent.is_dir():
        raise UsageError(f"--each {each}: there is no folder {each.parent}.")
    if prune is None and not (out is None and multiple is None and eval_text is None):
        raise UsageError("-o, --multiple and --eval-text are about a pruned model: add --prune 0.2")
    if prune is not None and out is None:
        raise UsageError(f"no output: trit neurons {name} --prune {prune:g} -o OUT.gguf")
    files = [file for file in (plot, each, out) if file is not None]
    if len({file.resolve() for file in files}) < len(files):
        raise UsageError("--plot, --each and -o: name a file of its own for each.")
    path = resolve(name, jsonl=jsonl)
    read = (*paths_of(path), text, eval_text)
    for file in files:
        refuse_overwrite(file, read)
    limit = None if chunks == -1 else chunks
    if prune is None:
        found, pruned = _measured(path, text, ctx, limit, exact, threads, jsonl), None
    else:
        assert out is not None
        pruned = _pruned(
            path, out, prune, text, ctx, limit, exact, multiple, eval_text, threads, jsonl
        )
        found = pruned.neurons
    for remark in found.notes:
        warn(remark)
    for target, write in ((plot, draw), (each, write_each)):
        if target is not None:
            write(found, target)
            note(f"written: {target}")
    if json:
        answer: dict[str, Any] = found.to_dict()
        print_json(answer if pruned is None else answer | {"pruned": pruned.to_dict()})
    else:
        print(neurons_text(found))
        if pruned is not None:
            print("", pruned_text(pruned), sep="\n")


def _measured(
    path: Path,
    text: Path | None,
    ctx: int | None,
    chunks: int | None,
    exact: bool,
    threads: int | None,
    jsonl: bool,
) -> "Neurons":
    from trit.cli._measuring import Measuring
    from trit.neurons import neurons

    with Measuring(jsonl=jsonl) as progress:
        return neurons(
            path, text, ctx=ctx, chunks=chunks, exact=exact, threads=threads, on_progress=progress
        )


def _pruned(
    path: Path,
    out: Path,
    share: float,
    text: Path | None,
    ctx: int | None,
    chunks: int | None,
    exact: bool,
    multiple: int | None,
    eval_text: Path | None,
    threads: int | None,
    jsonl: bool,
) -> "Pruned":
    from trit.cli._measuring import Measuring
    from trit.cli._windows import WindowProgress
    from trit.neurons import prune

    windows = WindowProgress(jsonl=jsonl)
    try:
        with Measuring(jsonl=jsonl) as progress:
            return prune(
                path, out, share, text, ctx=ctx, chunks=chunks, exact=exact, multiple=multiple,
                eval_text=eval_text, threads=threads, on_progress=progress, on_window=windows,
            )  # fmt: skip
    finally:
        windows.end()
