"""Facts for people: what a model knows and what it forgot, in 80 columns."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trit.cli._terminal import counted, signed, table

if TYPE_CHECKING:
    from trit.evaluate._interval import Interval
    from trit.evaluate.recall import Group, Recall

SHOWN = 8  # of the facts forgotten
WIDTH = 80


def asked(
    path: Path, reference: Path | None, threads: int | None, cache: str, jsonl: bool
) -> "Recall":
    """Ask, with progress on stderr."""
    from trit.cli._progress import Progress
    from trit.evaluate.recall import recall

    with Progress(jsonl=jsonl, unit="fact") as progress:
        return recall(path, reference, threads, progress, cache)


def facts_text(result: "Recall") -> str:
    """The answer for people; shares in percent, intervals of 95%."""
    against = "" if result.reference is None else f" against {result.reference}"
    parts = [
        f"{result.model}{against}",
        f"{counted(result.groups[0].items, 'fact')} (sha256 {result.facts_sha256[:16]}…), "
        f"counts of {result.corpus}",
        "",
        _shares(result.groups),
        "",
        _margins(result.groups),
    ]
    if result.rare_first is not None:
        parts += ["", *_rare_first(*result.rare_first)]
        parts += _forgotten(result)
    return "\n".join(parts)


def _shares(groups: Sequence["Group"]) -> str:
    compared = groups[0].change is not None
    head = ["RIGHT, %", "FACTS", "MODEL (95%)"]
    rows = [[*head, "REF.", "CHANGE (95%)", "LOST", "WON"] if compared else head]
    for group in groups:
        right = group.right
        row = [
            group.name,
            str(group.items),
            f"{100 * right.value:.1f} ({100 * right.low:.0f}–{100 * right.high:.0f})",
        ]
        if group.change is not None:
            assert group.reference_right is not None
            row += [
                f"{100 * group.reference_right.value:.1f}",
                signed(group.change, 100, 1),
                str(group.lost),
                str(group.won),
            ]
        rows.append(row)
    return table(rows, right=frozenset(range(1, len(rows[0]))))


def _margins(groups: Sequence["Group"]) -> str:
    compared = groups[0].change is not None
    head = ["MARGIN, nats", "MODEL (95%)"]
    rows = [[*head, "REF.", "CHANGE (95%)"] if compared else head]
    for group in groups:
        row = [group.name, signed(group.margin, 1, 2)]
        if group.margin_change is not None:
            assert group.reference_margin is not None
            row += [f"{group.reference_margin.value:+.2f}", signed(group.margin_change, 1, 2)]
        rows.append(row)
    return table(rows, right=frozenset(range(1, len(rows[0]))))


def _rare_first(right: "Interval", margin: "Interval") -> list[str]:
    """Whether rare facts go first."""
    return [
        "change of rare facts less that of frequent ones; below zero: rare ones go first",
        f"  right  {signed(right, 100, 1)} %: {_verdict(right)}",
        f"  margin {signed(margin, 1, 3)} nats: {_verdict(margin)}",
    ]


def _verdict(interval: "Interval") -> str:
    if not interval.shown:
        return "not shown"
    return "shown" if interval.high < 0 else "the opposite is shown"


def _forgotten(result: "Recall") -> list[str]:
    count = len(result.forgotten)
    if count == 0:
        return ["", "forgotten: none"]
    more = f", the {SHOWN} rarest (--json: all)" if count > SHOWN else ""
    lines = [f"  {fact.prompt} {fact.answer}" for fact in result.forgotten[:SHOWN]]
    return ["", f"forgotten: {count}{more}", *(_cut(line) for line in lines)]


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else line[: WIDTH - 1] + "…"
