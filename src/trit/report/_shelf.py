"""A page of the zoo: its models and those pulled, what each is, the cards of those here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trit import zoo
from trit.pictures import bits
from trit.report._document import Block, Heading, Items, Picture, Words, plus_minus
from trit.report._figures import Figures
from trit.report._header import described, own_card
from trit.report._html import page


def zoo_page() -> str:
    """The page, HTML that asks for nothing else. UnsupportedError without matplotlib."""
    entries = zoo.shelf()
    here = sum(entry.path is not None for entry in entries)
    under = f"{len(entries)} models, {here} of them on this machine"
    return page("Models of the zoo", under, _blocks(entries))


def _blocks(entries: list[zoo.Entry]) -> Iterator[Block]:
    for number, entry in enumerate(entries):
        yield Heading(entry.name)
        if entry.description:
            yield Words(entry.description)
        model = None if entry.path is None else described(entry.path, entry.name)
        yield Items(tuple(_facts(entry, model)))
        if model is not None:
            yield _picture(model, number)


def _facts(entry: zoo.Entry, model: Figures | None) -> Iterator[str]:
    size = f"{entry.size_bytes / 2**20:,.1f} MiB"
    if model is None:
        yield f"{size}; not here: trit pull {entry.name}"
    else:
        yield (
            f"{size}, {model.parameters / 1e6:,.0f} million parameters ({model.architecture}), "
            f"{model.bits_per_weight:.2f} bits per weight: {', '.join(model.types)}"
        )
    yield f"Licence: {entry.licence or 'not stated'}"
    if entry.path is not None:
        yield f"Quality card: {_card(entry.path)}"
        yield f"To talk with it: trit run {entry.name}"


def _card(path: Path) -> str:
    found = own_card(path)
    if found is None:
        return "none; what it lost against its source was not measured by trit"
    return (
        f"KLD {plus_minus(found.kld, 4)} from its source, perplexity {plus_minus(found.ppl, 2)} "
        f"for {plus_minus(found.ppl_source, 2)}, same top token "
        f"{plus_minus(found.same_top, 1, 100)}%, of {found.tokens:,} tokens of the card's text"
    )


def _picture(model: Figures, number: int) -> Picture:
    title = f"{model.label}: {model.bits_per_weight:.2f} bits per weight"
    return Picture(
        f"zoo-{number}", f"bits per weight of each tensor of {model.label}",
        lambda: bits.figure(model.grid, title), wide=True,
    )  # fmt: skip
