"""`trit synth`: a GGUF of random weights in the shape of a known model, for measuring speed."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trit.cli._options import Json, Pure
from trit.errors import UsageError

if TYPE_CHECKING:
    from trit.synth.shapes import Shape

Count = Annotated[int | None, typer.Option(metavar="N", show_default=False)]


def command(
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="OUT.gguf", help="The file to write.")
    ],
    shape: Annotated[
        str | None, typer.Argument(metavar="[SHAPE]", help="Such as llama-3.2-1b.")
    ] = None,
    type_: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="A mix such as Q4_K_M, or one format.")
    ] = "Q4_K_M",
    pure: Pure = False,
    seed: Annotated[
        int, typer.Option("--seed", "-s", metavar="N", help="Same seed, same bytes.")
    ] = 0,
    layers: Count = None,
    width: Count = None,
    heads: Count = None,
    kv_heads: Count = None,
    ffn: Count = None,
    vocab: Count = None,
    json: Json = False,
) -> None:
    """Write a GGUF of random weights in the shape of a known model.

    For measuring speed at real sizes; its answers mean nothing. SHAPE is one of llama-3.2-1b,
    llama-3.2-3b, llama-3-8b, bitnet-2b, qwen2.5-0.5b, qwen2.5-1.5b, gemma-3-1b; --layers, --width,
    --heads, --kv-heads, --ffn and --vocab change it or, without SHAPE, make one of Llama's kind.
    """  # fmt: skip
    from trit.cli._progress import Progress
    from trit.cli._terminal import note, print_json
    from trit.cli.writing.job import as_json, as_text, fallbacks
    from trit.synth import synth

    sizes = {
        "layers": layers, "width": width, "heads": heads,
        "kv_heads": kv_heads, "ffn": ffn, "vocab": vocab,
    }  # fmt: skip
    chosen = make_shape(shape, {key: value for key, value in sizes.items() if value is not None})
    with Progress() as progress:
        result = synth(chosen, out, type_, pure=pure, seed=seed, on_progress=progress)
    for text in fallbacks(result):
        note(text)
    if json:
        print_json(as_json(result, dry_run=False) | {"shape": chosen.name, "seed": seed})
    else:
        print(as_text(result, dry_run=False))


def make_shape(name: str | None, sizes: dict[str, int]) -> "Shape":
    """The shape of that name with other sizes, or one of sizes alone; UsageError if some lack."""
    from trit.synth.shapes import custom, find

    if name is not None:
        known = find(name)
        return replace(known, name=f"{known.name}, changed", **sizes) if sizes else known  # type: ignore[arg-type]
    missing = [key for key in ("layers", "width", "heads", "ffn", "vocab") if key not in sizes]
    if missing:
        flags = ", ".join(f"--{key}" for key in missing)
        raise UsageError(f"no shape: trit synth SHAPE -o OUT.gguf, or also give {flags}.")
    return custom(**sizes)
