#!/usr/bin/env python3
"""Writes src/trit/evaluate/facts.tsv, the items of `trit eval --facts`, from scripts/facts.txt.

    pip install wordfreq==3.1.1
    python scripts/facts.py

Each fact gets a count: how often the rarest of its words occurs among a billion words of English,
by wordfreq's "large" list. A fact with one rare word is rare however common the others are.
Arithmetic is counted by the names of its operands, "seventeen" and "forty" for 17 × 40.

Each fact gets three near misses. Of words and names they are answers to the same question about
other subjects, those most alike in length and count, each used about as often as the others; of
years and results, numbers nearby with as many digits. The same list gives the same file, to the
byte.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from wordfreq import tokenize, word_frequency

HERE = Path(__file__).parent
OUT = HERE.parent / "src/trit/evaluate/facts.tsv"
MISSES = 3
SEED = 4
CORPUS = "en, large list"

HEAD = """\
# Facts that `trit eval --facts` asks for, written by scripts/facts.py from scripts/facts.txt.
# Provenance: facts and near misses were written for this project, under its licence.
# count: how often `word`, the rarest word of the fact, occurs in a billion words.
# corpus: wordfreq {version} ({corpus}): Wikipedia, subtitles, news, books, web, Twitter, Reddit,
# to 2021. The counts are derived from its data, by Robyn Speer and others, CC BY-SA 4.0.
"""

NAMES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety"""


@dataclass(frozen=True)
class Fact:
    """One item; `counted` is the text whose rarest word is its count."""

    category: str
    relation: str
    prompt: str
    answer: str
    counted: str


def main() -> None:
    written = list(read())
    facts = written + list(arithmetic(random.Random(SEED)))
    used: Counter[str] = Counter()
    lines = [HEAD.format(version=version("wordfreq"), corpus=CORPUS)]
    lines.append("category\tcount\tword\tprompt\tanswer\tmisses\n")
    for fact in facts:
        count, word = rarest(fact.counted)
        pool = [other for other in written if other.relation == fact.relation]
        wrong = near_numbers(fact) if fact.answer.isdigit() else alike(fact, pool, used)
        row = [fact.category, str(count), word, fact.prompt, fact.answer, "|".join(wrong)]
        lines.append("\t".join(row) + "\n")
    OUT.write_text("".join(lines), encoding="utf-8")
    print(f"{OUT}: {dict(Counter(fact.category for fact in facts))}")


def read() -> Iterator[Fact]:
    """The facts of facts.txt."""
    category = prompt = both = ""
    for line in (HERE / "facts.txt").read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("== "):
            category, prompt, both = (part.strip() for part in line[3:].split("|"))
            assert both in ("subject", "both"), line
            continue
        subject, answer = (part.strip() for part in line.split(" = "))
        marked = re.search(r"\[(.*)\]", subject)
        counted = marked.group(1) if marked else subject
        if both == "both":
            counted += " " + answer
        asked = prompt.format(subject.replace("[", "").replace("]", ""))
        yield Fact(category, prompt, asked, answer, counted)


def arithmetic(draw: random.Random) -> Iterator[Fact]:
    """A hundred: the tables, larger products, sums, differences."""
    table = [(a, b) for a in range(3, 13) for b in range(a, 13)]
    larger = [(a, b) for a in range(13, 60) for b in range(3, 10) if a % 10]
    sums = [(a, b) for a in range(11, 90) for b in range(11, 99 - a) if a % 10 and b % 10]
    differences = [(a, b) for a in range(31, 100) for b in range(11, a - 9) if a % 10 and b % 10]
    for word, sign, pairs, count in (
        ("times", 1, table, 30),
        ("times", 1, larger, 25),
        ("plus", 0, sums, 25),
        ("minus", -1, differences, 20),
    ):
        for a, b in sorted(draw.sample(pairs, count)):
            result = a * b if sign > 0 else a + b if sign == 0 else a - b
            names = f"{spelled(a)} {spelled(b)}"
            yield Fact("arithmetic", word, f"{a} {word} {b} equals", str(result), names)


def spelled(number: int) -> str:
    """The name of a number below 100: 47 -> 'forty seven'."""
    names = NAMES.split()
    if number < 20:
        return names[number]
    ten, one = divmod(number, 10)
    return names[18 + ten] + (f" {names[one]}" if one else "")


def rarest(text: str) -> tuple[int, str]:
    """The least count of a word of the text, per billion, and the word; numbers are passed over."""
    plain = text.replace("'s", "").replace("d'", "")
    words = [word for word in tokenize(plain, "en") if not any(c.isdigit() for c in word)]
    counts = [round(word_frequency(word, "en", wordlist="large") * 1e9) for word in words]
    return min(zip(counts, words, strict=True))


def near_numbers(fact: Fact) -> list[str]:
    """Numbers nearby, of as many digits; years are far enough to be wrong in any calendar."""
    true = int(fact.answer)
    draw = random.Random(f"{SEED} {fact.prompt}")
    steps = [1, 2, 3, 10] if fact.category == "arithmetic" else [3, 4, 6, 8, 11, 13, 17, 22]
    if fact.category == "arithmetic" and true > 20:
        steps += [9, 11, 20]
    latest = 2019 if fact.category == "dates" else math.inf
    near = [str(n) for step in steps for n in (true - step, true + step) if 0 < n <= latest]
    return sorted(draw.sample([n for n in near if len(n) == len(fact.answer)], MISSES))


def alike(fact: Fact, pool: list[Fact], used: Counter[str]) -> list[str]:
    """Answers of the same question that could be taken for this one."""

    def distance(answer: str) -> tuple[float, str]:
        length = abs(len(answer) - len(fact.answer)) + 2 * abs(
            answer.count(" ") - fact.answer.count(" ")
        )
        counts = [math.log10(rarest(text)[0] + 10) for text in (answer, fact.answer)]
        return length + abs(counts[0] - counts[1]) + used[answer], answer

    others = {other.answer for other in pool} - {fact.answer}
    apart = [o for o in others if not o.startswith(fact.answer) and not fact.answer.startswith(o)]
    chosen = sorted(apart, key=distance)[:MISSES]
    used.update(chosen)
    return chosen


if __name__ == "__main__":
    main()
