"""A report as one page of HTML that asks for nothing else: style and pictures are in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape

from trit.pictures import svg
from trit.report._document import Block, Heading, Items, Picture, Table, Words, document
from trit.report._figures import Report

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fdfdfb; --soft: #63635e;
  --line: #dcdcd4; --mark: #e6f0f7; --link: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e1; --paper: #16171a; --soft: #a2a29b;
  --line: #36373c; --mark: #1d2f3d; --link: #6db6e6; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 74rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .2rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-top: .7rem;
  border-top: 1px solid var(--line); }
p, ul { margin: .5rem 0; max-width: 46rem; }
ul { padding-left: 1.2rem; }
li { margin: .25rem 0; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .9rem; }
.strong { font-size: 1.2rem; font-weight: 600; overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: var(--paper); }
td:first-child { font-weight: 500; }
tr.marked td { background: var(--mark); }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: .8rem 0; }
.pair figure { flex: 1 1 20rem; min-width: 0; }
svg { display: block; width: 100%; height: auto; color: var(--ink); }
.wide svg { min-width: 46rem; }
"""


def html(found: Report) -> str:
    """The page of a report."""
    return page(f"{found.title}: a report", _under(found), document(found))


def page(title: str, under: str, blocks: Iterable[Block]) -> str:
    """A page of blocks; `under` is a line below the title."""
    title, body = escape(title), "\n".join(_sections(blocks))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{title}</h1>\n<p class="soft">{escape(under)}</p>\n{body}\n</body>\n</html>\n'
    )


def _under(found: Report) -> str:
    against = "" if found.reference is None else f" against {found.reference}"
    count = len(found.models)
    return f"{count} file{'s' * (count > 1)}{against}, {found.machine.cpu}, {found.written}"


def _sections(blocks: Iterable[Block]) -> Iterator[str]:
    pair: list[str] = []  # pictures that stand beside each other where there is room
    for block in blocks:
        if isinstance(block, Picture) and not block.wide:
            pair.append(_picture(block))
            continue
        if pair:
            yield f'<div class="pair">{"".join(pair)}</div>'
            pair = []
        yield _block(block)


def _picture(picture: Picture) -> str:
    drawn = svg(picture.draw(), picture.name, escape(picture.alt))
    return f"<figure>{drawn}</figure>"


def _block(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Words(text, strong):
            kind = ' class="strong"' if strong else ""
            return f"<p{kind}>{escape(text)}</p>"
        case Items(items):
            return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case Picture():
            return f'<div class="wide">{_picture(block)}</div>'
        case Table(head, rows, marked):
            lines = [_line("th", head)]
            lines += [_line("td", row, number == marked) for number, row in enumerate(rows)]
            return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _line(tag: str, cells: tuple[str, ...], marked: bool = False) -> str:
    inner = "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)
    kind = ' class="marked"' if marked else ""
    return f"<tr{kind}>{inner}</tr>"
