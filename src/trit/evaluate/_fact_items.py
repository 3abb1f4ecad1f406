"""The facts that trit asks for: facts.tsv, whose head says where they and their counts are from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("facts.tsv")
THIRDS = ("rare", "middling", "frequent")


@dataclass(frozen=True)
class Fact:
    """One question.

    count    how often `word`, its rarest, occurs in a billion words of the corpus
    third    the third of its category's facts that it is in, by count: one of THIRDS
    answer, misses   what may follow the prompt, after a space
    """

    category: str
    count: int
    third: str
    word: str
    prompt: str
    answer: str
    misses: tuple[str, ...]

    @property
    def choices(self) -> tuple[str, ...]:
        """The answer, then the misses."""
        return (self.answer, *self.misses)


@dataclass(frozen=True)
class Facts:
    """All of them, what they were counted in, and the sha256 of the file."""

    items: tuple[Fact, ...]
    corpus: str
    sha256: str


def load() -> Facts:
    """The facts that come with trit, in the order of the file."""
    raw = FILE.read_bytes()
    lines = raw.decode("utf-8").splitlines()
    corpus = next(line for line in lines if line.startswith("# corpus: "))
    rows = [line.split("\t") for line in lines if not line.startswith("#")][1:]
    thirds = _thirds([(row[0], int(row[1])) for row in rows])
    items = tuple(
        Fact(category, int(count), third, word, prompt, answer, tuple(misses.split("|")))
        for (category, count, word, prompt, answer, misses), third in zip(rows, thirds, strict=True)
    )
    name = corpus.removeprefix("# corpus: ").partition(":")[0]
    return Facts(items, name, hashlib.sha256(raw).hexdigest())


def _thirds(counts: list[tuple[str, int]]) -> list[str]:
    """The third of each, within its category, so that each third has the same mix of categories."""
    found = [""] * len(counts)
    for category in {category for category, _ in counts}:
        places = [i for i, (name, _) in enumerate(counts) if name == category]
        places.sort(key=lambda i: counts[i][1])
        for rank, i in enumerate(places):
            found[i] = THIRDS[rank * len(THIRDS) // len(places)]
    return found
