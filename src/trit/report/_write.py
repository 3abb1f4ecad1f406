"""A report as a file: HTML, Markdown or JSON, by the ending of its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from trit import pictures
from trit.errors import UsageError
from trit.files._whole import whole
from trit.report._figures import Report
from trit.report._html import html
from trit.report._markdown import markdown

ENDINGS = (".html", ".md", ".json")


def check(path: Path) -> None:
    """The errors of `write`, before anything is measured: UsageError for another ending or no such
    folder, UnsupportedError without matplotlib (extra `plot`) where pictures are drawn."""
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"-o {path}: expected a name that ends in {', '.join(ENDINGS)}.")
    if not path.parent.is_dir():
        raise UsageError(f"-o {path}: there is no folder {path.parent}.")
    if path.suffix.lower() != ".json":
        pictures.require("a report's pictures")


def write(found: Report, path: Path) -> list[Path]:
    """Write a report, each file whole or absent; Markdown has its pictures beside it. All paths."""
    check(path)
    made: list[Path] = []
    if path.suffix.lower() == ".html":
        text = html(found)
    elif path.suffix.lower() == ".md":

        def draw(name: str, figure: Callable[[], object]) -> str:
            picture = path.with_name(f"{path.stem}-{name}.svg")
            pictures.save(figure(), picture)
            made.append(picture)
            return picture.name

        text = markdown(found, draw)
    else:
        text = json.dumps(found.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with whole(path) as file:
        file.write(text.encode())
    return [path, *made]
