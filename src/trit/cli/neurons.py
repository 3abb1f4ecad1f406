"""`trit neurons`: which neurons of a model stay dark, and a model without the darkest."""

from pathlib import Path
from typing import Annotated

import typer

from trit.errors import UsageError


def command(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Folder, GGUF file or model name.")
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(
            "--text",
            "--file",
            "-f",
            metavar="FILE",
            help="UTF-8 text to measure on. Default: passages of trit's and what the model writes.",
        ),
    ] = None,
    model_option: Annotated[
        str | None, typer.Option("--model", "-m", metavar="MODEL", help="The same as MODEL.")
    ] = None,
    ctx: Annotated[
        int | None,
        typer.Option(
            "--ctx", "--ctx-size", "-c", metavar="N", min=1, help="Tokens of a chunk; default: 512."
        ),
    ] = None,
    chunks: Annotated[
        int, typer.Option("--chunks", metavar="N", help="Chunks to read; -1: all.")
    ] = -1,
    exact: Annotated[
        bool, typer.Option("--exact", help="Do not round float weights to Q8_0 on the way: slow.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the curves, .svg or .png.")
    ] = None,
    each: Annotated[
        Path | None,
        typer.Option("--each", metavar="FILE", help="Write a line of TSV for every neuron."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", "-t", min=1, help="Default: all cores.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Progress as JSON lines.")] = False,
) -> None:
    """Measure how often feed-forward neurons fire, how strongly, and how few carry the output.

    What firing means is a matter of a threshold: several are asked, and the last line says by which
    of them "80% rarely activate" is true of this model. Energies of neurons leave out cross terms.
    """
    from trit.cli._measuring import Measuring
    from trit.cli._model_argument import chosen
    from trit.cli._neurons import neurons_text
    from trit.cli._resolve import resolve
    from trit.cli._terminal import note, print_json, warn
    from trit.neurons import check_plot, draw, neurons, write_each

    name = chosen("neurons", model, model_option)
    if plot is not None:
        check_plot(plot)
    if each is not None and not each.parent.is_dir():
        raise UsageError(f"--each {each}: there is no folder {each.parent}.")
    path = resolve(name, jsonl=jsonl)
    with Measuring(jsonl=jsonl) as progress:
        found = neurons(
            path, text, ctx=ctx, chunks=None if chunks == -1 else chunks, exact=exact,
            threads=threads, on_progress=progress,
        )  # fmt: skip
    for remark in found.notes:
        warn(remark)
    for target, write in ((plot, draw), (each, write_each)):
        if target is not None:
            write(found, target)
            note(f"written: {target}")
    if json:
        print_json(found.to_dict())
    else:
        print(neurons_text(found))
