"""A report as Markdown, its pictures beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trit.report._document import Block, Heading, Items, Picture, Table, Words, document
from trit.report._figures import Report

Draw = Callable[[str, Callable[[], object]], str]


def markdown(found: Report, draw: Draw) -> str:
    """The text. `draw` writes a picture of a name and gives the name of its file."""
    parts = [f"# {_plain(found.title)}: a report"]
    parts += ["\n".join(_block(block, draw)) for block in document(found)]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, draw: Draw) -> Iterator[str]:
    match block:
        case Heading(text):
            yield f"## {text}"
        case Words(text, strong):
            yield f"**{_plain(text)}**" if strong else _plain(text)
        case Items(items):
            yield from (f"- {_plain(item)}" for item in items)
        case Picture(name, alt, figure):
            yield f"![{_plain(alt)}]({draw(name, figure)})"
        case Table(head, rows, marked):
            yield f"| {' | '.join(map(_cell, head))} |"
            yield f"|---|{'--:|' * (len(head) - 1)}"
            for number, row in enumerate(rows):
                first, *others = map(_cell, row)
                name = f"**{first}**" if number == marked else first
                yield f"| {' | '.join([name, *others])} |"


def _cell(text: str) -> str:
    return _plain(text).replace("|", "\\|")


def _plain(text: str) -> str:
    """What Markdown would take as its own signs, as signs."""
    for sign in ("\\", "*", "_", "`", "<", "["):
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())
