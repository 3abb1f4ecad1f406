"""Which of the files to take, by the rule of `recommend`, on what the report measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from trit.errors import TritError
from trit.recommend import recommend, with_measured
from trit.report._figures import Figures

Words = tuple[str, ...]


def choose(models: Sequence[Figures]) -> tuple[Words, str | None]:
    """Sentences, and the label of the file to take; None where the rule has no answer."""
    if len(models) < 2:
        return ("There is one file: nothing to choose from.",), None
    unknown = [each.label for each in models if _kld(each) is None]
    if unknown:
        return (
            f"No choice is made: what {', '.join(unknown)} loses is not known. Give --reference, "
            "the floats that all of them were made from.",
        ), None
    klds = {each.path: float(_kld(each) or 0.0) for each in models}
    speeds = {each.path: speed for each in models if (speed := decoding(each)) is not None}
    called = {each.path: each.label for each in models}
    try:
        found = with_measured(recommend(list(klds), measure=False), klds, speeds)
    except TritError as error:  # of several models, or no room: the figures stand all the same
        return (f"No choice is made: {_named(str(error), called)}",), None
    words = [_named(word.rstrip(".") + ".", called) for word in found.words]
    known = "Speeds and losses are" if speeds else "Losses (speeds were not measured) are"
    words.append(f"{known} those of this report, the rule is that of 'trit recommend'.")
    return tuple(words), None if found.chosen is None else called[str(found.chosen.path)]


def _named(words: str, called: Mapping[str, str]) -> str:
    """Files by their labels: where they lie is not for a page that is handed on."""
    for path, label in called.items():
        words = words.replace(path, label)
    return words


def _kld(model: Figures) -> float | None:
    if model.is_reference:
        return 0.0
    known = model.quality.kld if model.quality is not None else None
    return None if known is None else known.mean


def decoding(model: Figures) -> float | None:
    """Tokens per second of generation, the median; None where it was not measured."""
    rates = [rate.median for rate in model.rates if rate.test.startswith("tg")]
    return rates[0] if rates else None


def labels(paths: Sequence[Path]) -> list[str]:
    """What to call each: its name without the ending; with its folder where two have the same."""
    short = [path.stem if path.suffix == ".gguf" else path.name for path in paths]
    return [
        name if short.count(name) == 1 else f"{path.parent.name}/{name}"
        for name, path in zip(short, paths, strict=True)
    ]
