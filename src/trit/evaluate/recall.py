"""Which facts a model knows, and which of them a quant forgets.

Each item is a prompt, the true answer and near misses. A model is right where it finds the answer
likelier than every miss, by ln p of the whole continuation: that is what it believes, and misses
are of a length with the answer. Right by ln p per byte is given too; bytes, for they are the same
whatever the tokenizer. The margin is ln p(answer) − the greatest ln p of a miss, in nats.

Answers of a quant and its reference are compared item by item. Rare and frequent facts are the
outer thirds of each category by the count of a fact's rarest word; the head of facts.tsv names the
corpus. A fact is lost where the reference is right and the quant wrong, won the other way round:
facts near a margin of zero go both ways, so it is the difference that tells.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trit import zoo
from trit.evaluate import _interval
from trit.evaluate._fact_items import THIRDS, Fact, load
from trit.evaluate._fact_scores import score
from trit.evaluate._interval import Interval
from trit.evaluate._opened import Opened

PathLike = str | os.PathLike[str]
Doubles = NDArray[np.float64]

CTX = 128  # tokens; the longest item has 75 letters


@dataclass(frozen=True)
class Answers:
    """One model's answers to n items.

    margin         (n,) nats
    right          (n,) bool, by ln p of the whole continuation
    right_by_byte  (n,) bool, by ln p per byte
    """

    margin: Doubles
    right: NDArray[np.bool_]
    right_by_byte: NDArray[np.bool_]


@dataclass(frozen=True)
class Group:
    """Some of the items, with 95% intervals; what compares is None without a reference.

    change, margin_change   the model's less the reference's, of the same items
    lost, won               items right in the reference alone, in the model alone
    """

    name: str
    items: int
    right: Interval
    right_by_byte: float
    margin: Interval
    reference_right: Interval | None = None
    reference_margin: Interval | None = None
    change: Interval | None = None
    margin_change: Interval | None = None
    lost: int | None = None
    won: int | None = None


@dataclass(frozen=True)
class Recall:
    """What was measured, and all it depends on.

    groups       all items; then each category; then each third by count
    rare_first   the change of the rare third less that of the frequent one, of the share right and
                 of the margin; where its interval is below zero, rare facts go first
    forgotten    the facts lost, rarest first
    """

    model: str
    reference: str | None
    corpus: str
    facts_sha256: str
    isa: str
    groups: tuple[Group, ...]
    rare_first: tuple[Interval, Interval] | None
    forgotten: tuple[Fact, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it; shares are fractions, margins nats, intervals [low, high] of 95%."""
        answer: dict[str, Any] = {
            "model": self.model,
            "reference": self.reference,
            "corpus": self.corpus,
            "facts_sha256": self.facts_sha256,
            "isa": self.isa,
            "groups": [_group_dict(group) for group in self.groups],
        }
        if self.rare_first is not None:
            right, margin = self.rare_first
            answer["rare_minus_frequent"] = {
                **_interval_dict("change", right),
                **_interval_dict("margin_change", margin),
            }
            answer["forgotten"] = [
                {
                    "category": fact.category,
                    "count": fact.count,
                    "third": fact.third,
                    "prompt": fact.prompt,
                    "answer": fact.answer,
                }
                for fact in self.forgotten
            ]
        return answer


def recall(
    model: PathLike,
    reference: PathLike | None = None,
    threads: int | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
    cache_type: str = "f16",
) -> Recall:
    """Ask a model, and a reference where one is given, for the facts that come with trit.

    model, reference   as for `evaluate`; their vocabularies may differ
    on_progress        called with (model, items done, of all)
    cache_type         what `model` keeps keys and values in; a reference keeps them in f16
    Errors as for `evaluate`.
    """
    paths = [zoo.resolve(os.fspath(path)) for path in (model, reference) if path is not None]
    facts = load()
    found, isa = [], ""
    for path, kept in zip(paths, (cache_type, "f16"), strict=False):
        with Opened(path, CTX, threads, kept) as opened:
            isa = opened.engine.isa
            found.append(ask(opened, facts.items, on_progress))
    ours, theirs = found[0], found[1] if len(found) > 1 else None
    return Recall(
        model=os.fspath(paths[0]),
        reference=None if theirs is None else os.fspath(paths[1]),
        corpus=facts.corpus,
        facts_sha256=facts.sha256,
        isa=isa,
        groups=groups(facts.items, ours, theirs),
        rare_first=None if theirs is None else rare_first(facts.items, ours, theirs),
        forgotten=() if theirs is None else _forgotten(facts.items, ours, theirs),
    )


def ask(
    model: Opened,
    items: Sequence[Fact],
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Answers:
    """A model's answers to `items`."""

    def report(done: int) -> None:
        if on_progress is not None:
            on_progress(f"asking {Path(model.file.path).name}", done, len(items))

    report(0)
    return answers(items, score(model, items, report))


def answers(items: Sequence[Fact], log_p: Sequence[Doubles]) -> Answers:
    """From ln p of each item's choices (choices,), the answer's first."""
    sizes = [np.array([len(f" {c}".encode()) for c in item.choices]) for item in items]
    margin = np.array([_margin(values) for values in log_p])
    by_byte = np.array([_margin(v / size) for v, size in zip(log_p, sizes, strict=True)])
    return Answers(margin, margin > 0, by_byte > 0)


def _margin(values: Doubles) -> float:
    return float(values[0] - values[1:].max())


def groups(items: Sequence[Fact], ours: Answers, theirs: Answers | None) -> tuple[Group, ...]:
    """All items, each category, each third; compared with `theirs` where given."""
    categories = dict.fromkeys(item.category for item in items)
    chosen = {"all": np.ones(len(items), dtype=bool)}
    chosen |= {name: np.array([i.category == name for i in items]) for name in categories}
    chosen |= {name: np.array([i.third == name for i in items]) for name in THIRDS}
    return tuple(_group(name, which, ours, theirs) for name, which in chosen.items())


def _group(name: str, which: NDArray[np.bool_], ours: Answers, theirs: Answers | None) -> Group:
    count, right = int(which.sum()), ours.right[which]
    own = Group(
        name=name,
        items=count,
        right=_interval.share(int(right.sum()), count),
        right_by_byte=float(ours.right_by_byte[which].mean()),
        margin=_interval.mean(ours.margin[which]),
    )
    if theirs is None:
        return own
    lost, won, _ = _moves(which, ours, theirs)
    return Group(
        **vars(own)
        | {
            "reference_right": _interval.share(int(theirs.right[which].sum()), count),
            "reference_margin": _interval.mean(theirs.margin[which]),
            "change": _interval.change(lost, won, count),
            "margin_change": _interval.mean((ours.margin - theirs.margin)[which]),
            "lost": lost,
            "won": won,
        }
    )


def _moves(which: NDArray[np.bool_], ours: Answers, theirs: Answers) -> tuple[int, int, int]:
    """Lost, won, of how many."""
    lost = int((which & theirs.right & ~ours.right).sum())
    won = int((which & ours.right & ~theirs.right).sum())
    return lost, won, int(which.sum())


def rare_first(items: Sequence[Fact], ours: Answers, theirs: Answers) -> tuple[Interval, Interval]:
    """The change of the rare third less that of the frequent one: share right, and margin."""
    rare, frequent = (
        np.array([item.third == name for item in items]) for name in (THIRDS[0], THIRDS[-1])
    )
    moves = [_moves(which, ours, theirs) for which in (rare, frequent)]
    shift = ours.margin - theirs.margin
    return (
        _interval.difference_of_changes(*moves),
        _interval.difference_of_means(shift[rare], shift[frequent]),
    )


def _forgotten(items: Sequence[Fact], ours: Answers, theirs: Answers) -> tuple[Fact, ...]:
    gone = theirs.right & ~ours.right
    lost = [item for item, forgot in zip(items, gone, strict=True) if forgot]
    return tuple(sorted(lost, key=lambda fact: fact.count))


def _group_dict(group: Group) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "name": group.name,
        "items": group.items,
        **_interval_dict("right", group.right),
        "right_by_byte": group.right_by_byte,
        **_interval_dict("margin", group.margin),
    }
    for name in ("reference_right", "reference_margin", "change", "margin_change"):
        value = getattr(group, name)
        if value is not None:
            answer |= _interval_dict(name, value)
    if group.lost is not None:
        answer |= {"lost": group.lost, "won": group.won}
    return answer


def _interval_dict(name: str, interval: Interval) -> dict[str, Any]:
    return {name: interval.value, f"{name}_interval": [interval.low, interval.high]}
