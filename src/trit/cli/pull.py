"""`trit pull`: bring a model to this machine. Prints its path, so it fits into $(...)."""

from typing import Annotated

import typer

from trit.cli._options import Json, Jsonl


def command(
    name: Annotated[str, typer.Argument(help="A name of 'trit list', or hf:org/repo[:QUANT].")],
    json: Json = False,
    jsonl: Jsonl = False,
) -> None:
    """Download a model and check it."""
    from trit import zoo
    from trit.cli._progress import Progress
    from trit.cli._terminal import note, print_json, size, wrapped

    before = zoo.local(name)
    with Progress(jsonl=jsonl) as progress:
        path = zoo.pull(name, on_progress=progress, announce=lambda text: note(wrapped(text)))
    files = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    count = sum(file.stat().st_size for file in files)
    if json:
        model = zoo.models().get(name.lower())
        answer = {
            "name": name if model is None else model.name,
            "path": str(path),
            "bytes": count,
            "sha256": None if model is None else model.sha256,
            "licence": None if model is None else model.licence,
            "downloaded": before != path,
        }
        print_json(answer)
        return
    note(f"{name}: {'already here' if before == path else 'pulled and checked'}, {size(count)}")
    print(path)
