"""`trit list`: the models of the zoo and those pulled from Hugging Face."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from trit.cli._options import Json

ALIASES = ("ls",)


def command(
    page: Annotated[
        Path | None,
        typer.Option("--page", metavar="FILE.html", help="Write a page of them, with their cards."),
    ] = None,
    json: Json = False,
) -> None:
    """List the models that can be pulled and those that are here."""
    import shutil
    import sys

    from trit import zoo
    from trit.cli._terminal import print_json, size, table

    if page is not None:
        _write(page)
    entries = zoo.shelf()
    if json:
        print_json(
            [
                {
                    "name": entry.name,
                    "bytes": entry.size_bytes,
                    "licence": entry.licence or None,
                    "description": entry.description or None,
                    "pulled": entry.path is not None,
                    "path": None if entry.path is None else str(entry.path),
                    "partial_bytes": entry.partial_bytes,
                    "shipped": entry.shipped,
                }
                for entry in entries
            ]
        )
        return
    rows = [("NAME", "SIZE", "HERE", "LICENCE", "ABOUT")]
    for entry in entries:
        here = "yes" if entry.path else "no"
        if entry.path is None and entry.partial_bytes:
            here = f"{100 * entry.partial_bytes // entry.size_bytes}%"
        rows.append((entry.name, size(entry.size_bytes), here, entry.licence, entry.description))
    lines = table(rows, right=frozenset({1})).splitlines()
    if sys.stdout.isatty() and max(map(len, lines)) > shutil.get_terminal_size().columns:
        lines = _in_pairs(rows)
    print("\n".join(lines))


def _in_pairs(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """What a model is about on a line of its own, where the terminal is narrow."""
    from trit.cli._terminal import table, wrapped

    heads = table([row[:-1] for row in rows], right=frozenset({1})).splitlines()
    pairs = zip(heads[1:], rows[1:], strict=True)
    return [heads[0], *(part for head, row in pairs for part in (head, wrapped(row[-1], "    ")))]


def _write(path: Path) -> None:
    from trit import pictures
    from trit.cli._terminal import note
    from trit.errors import UsageError
    from trit.files._whole import whole
    from trit.report import zoo_page

    if path.suffix.lower() != ".html" or not path.parent.is_dir():
        raise UsageError(f"--page {path}: expected a name that ends in .html, in a folder there is")
    pictures.require("--page")
    with whole(path) as file:
        file.write(zoo_page().encode())
    note(f"written: {path}")
