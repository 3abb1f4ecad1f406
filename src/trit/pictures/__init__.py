"""Pictures of models, as PNG or SVG, by matplotlib (extra `plot`), which is imported when drawing.

    bits.draw(model, Path("bits.svg"))     # where each tensor's bits went
    pareto.draw(...)                       # quality and speed against size

A picture is whole or absent, and the same bytes for the same figures.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trit.errors import UnsupportedError, UsageError
from trit.files._whole import whole

KINDS = (".svg", ".png")
DPI = 130
INK = "#1b1b1b"  # of text and axes; inside a page that of its text


def check(path: Path, flag: str) -> None:
    """UsageError for another kind of file or no such folder, UnsupportedError without matplotlib:
    before anything is measured. `flag` is what named the path."""
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"{flag} {path}: expected a name that ends in {' or '.join(KINDS)}.")
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {path}: there is no folder {path.parent}.")
    require(flag)


def require(what: str) -> None:
    """UnsupportedError without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UnsupportedError(f"{what} needs matplotlib: pip install 'trit[plot]'") from None


def save(figure: Any, path: Path) -> None:
    """Write a figure as the path's ending says."""
    kind = path.suffix[1:].lower()
    with _settings(), whole(path) as file:
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(file, format=kind, dpi=DPI, metadata=metadata)


def svg(figure: Any, name: str, alt: str) -> str:
    """A figure as an SVG element for a page: no background, text in the page's colour, nothing
    named as in another picture of the page, whose `name` is another. `alt`, escaped, describes.
    """
    out = io.StringIO()
    with _settings():
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([\w-]+)"', lambda m: m[0] if m[1] in used else "", text)
    text = re.sub(r'( id="|#)(m|p|C)([\w-]+)', rf"\1{name}-\2\3", text)
    return re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text).replace(
        "<svg ", f'<svg role="img" aria-label="{alt}" ', 1
    )


@contextmanager
def style() -> Iterator[None]:
    """What figures are made within; names of files and tensors are no formulas."""
    from matplotlib import rc_context

    coloured = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: dict[Any, Any] = dict.fromkeys(coloured, INK)
    with rc_context({**settings, "text.parse_math": False}):
        yield


@contextmanager
def _settings() -> Iterator[None]:
    """Text as text, which is small; names that are the same the next time."""
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "trit"}):
        yield
