"""`trit rm`: give a pulled model's disk space back."""

from typing import Annotated

import typer

from trit.cli._options import Json


def command(
    name: Annotated[str, typer.Argument(help="A name of 'trit list'.")],
    json: Json = False,
) -> None:
    """Delete a pulled model."""
    from trit import zoo
    from trit.cli._terminal import note, print_json, size

    freed = zoo.remove(name)
    if json:
        print_json({"name": name, "freed_bytes": freed})
    else:
        note(f"{name}: removed, {size(freed)} freed")
