"""`trit verify`: prove that a file was made from a source by its own recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trit.cli._options import Json, Jsonl, Threads

if TYPE_CHECKING:
    from trit.verify import Proof


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="GGUF file of trit quantize.")],
    source: Annotated[str, typer.Option("--source", metavar="SRC", help="What it was made from.")],
    imatrix: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="Its importance data, if not beside FILE."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="TEXT", help="Its calibration text, if not beside FILE."),
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Measure its quality card again in any case.")
    ] = False,
    threads: Threads = None,
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Make a quantized file again and compare bytes, or its card.

    Nothing is written. The first tensor that differs is named, and the exit code is 1.
    """
    from trit.cli._progress import Progress
    from trit.cli._resolve import resolve
    from trit.cli._terminal import note, print_json
    from trit.cli.figures.card import measured
    from trit.verify import verify

    base = resolve(source, jsonl=jsonl)
    with Progress(jsonl=jsonl) as progress:
        proof = verify(
            file,
            base,
            imatrix=imatrix,
            calibration=calibration,
            card=card,
            threads=threads,
            on_progress=progress,
            measure_card=lambda path, src: measured(path, src, threads, jsonl),
        )
    for text in proof.notes:
        note(text)
    if json:
        print_json(proof.to_dict())
    else:
        print(as_text(proof))


def as_text(proof: "Proof") -> str:
    """The verdict for people."""
    if proof.because is None:
        more = "; its card holds too" if "card" in proof.by else ""
        return (
            f"{proof.path}: the same {proof.bytes:,} bytes ({proof.tensors} tensors) come from "
            f"{proof.source} by its recipe{more}"
        )
    return f"{proof.path}: its card holds against {proof.source}\n(not the bytes: {proof.because})"
