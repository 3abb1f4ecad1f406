"""What commands say and how: the answer on stdout, remarks on stderr, sizes people read."""

import json
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trit.estimate import Machine
    from trit.evaluate._interval import Interval


def note(text: str) -> None:
    """A remark on stderr."""
    print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    """A warning on stderr."""
    note(f"trit: warning: {text}")


def print_json(answer: Any) -> None:
    """The answer as JSON on stdout. Not-a-number has no JSON spelling and is a bug here."""
    print(json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False))


def size(count: float) -> str:
    """Bytes for people: 1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def rate(speed: float) -> str:
    """Three figures of so many a second, never 1e+03."""
    return f"{speed:.0f}" if speed >= 100 else f"{speed:.3g}"


def counted(count: int, noun: str) -> str:
    """'1 run', '2 runs', '1,234 runs'."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def table(rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> str:
    """Columns padded to their widest cell; the numbers of `right` are flush right."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def human(count: int) -> str:
    """134515008 -> '135M'."""
    for unit, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g}{unit}"
    return str(count)


def signed(value: "Interval", factor: float, digits: int) -> str:
    """A difference with its interval: '+1.2 (-0.3 … +2.7)'."""
    shown = (f"{factor * part:+.{digits}f}" for part in (value.value, value.low, value.high))
    return "{} ({} … {})".format(*shown)


def machine_line(where: "Machine") -> str:
    """The machine, its memory, and where the speed is from."""
    lines = [f"{where.name}: {size(where.memory)} for a model, {where.kept}"]
    if where.bandwidth:
        lines.append(f"memory read at {where.bandwidth / 1e9:.1f} GB/s ({where.basis})")
    return "\n".join(wrapped(line) for line in lines)


def wrapped(text: str, indent: str = "") -> str:
    """Prose in 80 columns, each line behind `indent`."""
    return textwrap.fill(
        text, 80, break_long_words=False, break_on_hyphens=False, initial_indent=indent,
        subsequent_indent=indent,
    )  # fmt: skip
