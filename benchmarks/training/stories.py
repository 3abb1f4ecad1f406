"""Short stories for children to train a small model on, told by a teacher of the zoo.

    python benchmarks/training/stories.py stories.jsonl --stories 10000   # go on with what is there
    python benchmarks/training/stories.py stories.jsonl --stories 10000 --text stories.txt

A model of 135 million parameters left alone tells a story that turns in circles. So the plot is
ours and the telling the teacher's: `story_words.toml` has arcs of beats, sentences that are begun;
words are drawn into them, and the teacher goes on to the end of each sentence, from tokens of plain
lower-case words and the names of the story alone. All stories under way are one batch of trit's
scheduler. Draws are keyed by seed and story, so the same numbers give the same stories, stopped and
taken up again or not. A line of the output is a story, or why there is none: those that go on too
long or say a thing twice are left out.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import trit
from trit.runtime.model import Model
from trit.runtime.sample import Sampler, SamplerSettings
from trit.runtime.scheduler import Run, Scheduler

TEACHER = "smollm2-135m-instruct"  # Apache-2.0
SEED = 0
SETTINGS = SamplerSettings(temperature=0.7, top_k=40, top_p=0.9, repeat_penalty=1.1)
LONG_TOKENS = 10  # of the teacher's in a sentence: from then on its end becomes likelier,
END_BIAS = 0.4  # nats per token,
MOST_TOKENS = 26  # and a story with a longer one is left out
SPOKEN = (" I", " said", " say", " says", " replied")  # only in a speech: ours have the quotes
FREQUENT = 16384  # tokens, by the order of the teacher's merges: simple words
TOGETHER = 32  # stories
BLOCK = 256  # stories that are begun at a time
SEPARATOR = "<|endoftext|>"
SYSTEM = "You tell short stories to small children, in simple words and short sentences."

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Outline:
    """A story before it is told: its beats with their words, and what the teacher is asked."""

    number: int
    request: str
    beats: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Book:
    """Words by their kind, and arcs: a feature, and for each beat what it may be."""

    words: dict[str, list[str]]
    arcs: list[tuple[str, list[list[str]]]]

    @staticmethod
    def read(path: Path) -> Book:
        content = tomllib.loads(path.read_text("utf-8"))
        words = {
            kind: [word.strip() for word in (text.split("|") if "|" in text else text.split())]
            for kind, text in content["words"].items()
        }
        return Book(words, [(arc["feature"], arc["beats"]) for arc in content["arc"]])

    def outline(self, number: int) -> Outline:
        """The story of that number."""
        draw = random.Random(f"{SEED} {number}")
        feature, beats = draw.choice(self.arcs)
        words = self._words(draw)
        told = tuple(_articles(draw.choice(each).format_map(words)) for each in beats)
        request = (
            f"Write a short story about {words['hero']} the {words['kind']} and {words['his']} "
            f"friend {words['friend']}. {feature}"
        )
        return Outline(number, request, told, (words["hero"], words["friend"]))

    def _words(self, draw: random.Random) -> dict[str, str]:
        words = {kind: draw.choice(every) for kind, every in self.words.items()}
        for kind in ("kind", "mood", "place", "noun"):
            words[f"{kind}2"] = draw.choice([w for w in self.words[kind] if w != words[kind]])
        words["adj2"] = f"a {draw.choice(self.words['adj'])}"
        words["adj"] = f"a {words['adj']}"
        she = words["kind"] == "girl" or (words["kind"] != "boy" and draw.random() < 0.5)
        own = self.words["she" if she else "he"]
        words["hero"], words["friend"] = draw.sample(own, 2)
        if draw.random() < 0.5:
            words["friend"] = draw.choice(self.words["he" if she else "she"])
        he = ("she", "her", "her") if she else ("he", "his", "him")
        for key, word in zip(("he", "his", "him"), he, strict=True):
            words[key], words[key.capitalize()] = word, word.capitalize()
        return words


def _articles(text: str) -> str:
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", text)


class Story(Run[None]):
    """A story while it is told. `why` says what is wrong with it, once it has ended."""

    def __init__(self, outline: Outline, model: Model, plain: Ids) -> None:
        self.text = ""
        self.why = "unfinished"
        self.number = outline.number
        self._model = model
        self._beats = iter(outline.beats)
        names = [model.tokenizer.encode(f" {name}", add_special=False) for name in outline.names]
        self._ids = np.unique(np.concatenate([plain, *names]))
        self._ends = np.isin(self._ids, [model.tokenizer.encode(end)[-1] for end in ".!?"])
        spoken = [model.tokenizer.encode(word, add_special=False)[0] for word in SPOKEN]
        self._spoken = np.isin(self._ids, spoken)
        self._sampler = Sampler(replace(SETTINGS, seed=self.number), len(self._ids))
        self._quoted = False
        self._sentence: list[int] = []
        messages = [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": outline.request},
        ]
        super().__init__(model.prompt(messages) + self._next_beat(), model.ctx)

    def choose(self, logits: NDArray[np.float32]) -> tuple[None, int | None]:
        """The teacher's next token, and after the end of a sentence the beat that follows."""
        here = logits[self._ids]
        here[self._ends] += END_BIAS * max(0, len(self._sentence) - LONG_TOKENS)
        if not self._quoted:
            here[self._spoken] = -np.inf
        index = self._sampler.sample(here, len(self.tokens))
        token = int(self._ids[index])
        self._sentence.append(token)
        if not self._ends[index]:
            self._sampler.accept(index)  # a full stop is no repetition
            self.why = "a sentence without end" if len(self._sentence) >= MOST_TOKENS else self.why
            return None, token if len(self._sentence) < MOST_TOKENS else None
        after = '"' if self._quoted else ""
        self.text += self._model.tokenizer.decode(self._sentence) + after
        beat = self._next_beat(after)
        if not beat:
            self.why = fault(self.text)
            return None, None
        # What is forced is read like a prompt; the scheduler appends the last token itself.
        self.tokens += [token, *beat[:-1]]
        return None, beat[-1]

    def _next_beat(self, before: str = "") -> list[int]:
        """Tokens up to where the teacher goes on; none when the story is over."""
        forced = before
        for beat in self._beats:
            opening, gap, after = beat.partition("…")
            space = " " if self.text else ""
            forced += space + opening
            self.text += space + opening
            if gap:
                self._quoted, self._sentence = bool(after), []
                return self._model.tokenizer.encode(forced, add_special=False)
        return []


def fault(text: str) -> str:
    """What is wrong with a story; empty if nothing is."""
    sentences = [s for s in re.split(r"(?<=[.!?])\s+", text) if len(s.split()) > 3]
    words = re.findall(r"[a-z']+", text.lower())
    fours = [tuple(words[at : at + 4]) for at in range(len(words) - 3)]
    if not text.isascii():
        return "not ascii"
    if len(set(sentences)) < len(sentences):
        return "a sentence twice"
    if len(fours) - len(set(fours)) > 4 or any(a == b for a, b in pairwise(words)):
        return "words repeated"
    return ""


def plain_tokens(model: Model) -> Ids:
    """The frequent tokens that are words in small letters, parts of such, " I", or punctuation."""
    good = re.compile(rb" ?[a-z]+|'[a-z]+| I|[.,!?]")
    spelled = (model.tokenizer.token_bytes(token) for token in range(FREQUENT))
    return np.array([token for token, raw in enumerate(spelled) if good.fullmatch(raw)], np.int64)


def tell(model: Model, numbers: list[int], book: Book) -> Iterator[Story]:
    """The stories of these numbers, each as it ends."""
    scheduler = Scheduler(model.engine, together=TOGETHER, draft_max=0)
    plain = plain_tokens(model)
    stories = [Story(book.outline(number), model, plain) for number in numbers]
    for story, _ in scheduler.follow(stories):
        if story.ended:
            yield story


def numbers_in(path: Path) -> set[int]:
    """The stories that were tried already."""
    if not path.exists():
        return set()
    return {json.loads(line)["number"] for line in path.read_text("ascii").splitlines()}


def sample(path: Path, count: int, threads: int) -> None:
    """Try the first `count` stories, those that are in the file left out, and append each."""
    book = Book.read(Path(__file__).with_name("story_words.toml"))
    left = sorted(set(range(count)) - numbers_in(path))
    begun, done, kept, size = time.monotonic(), 0, 0, 0
    with trit.load(TEACHER, ctx=512, threads=threads) as model, path.open("a") as out:
        for at in range(0, len(left), BLOCK):
            for story in tell(model, left[at : at + BLOCK], book):
                line = {"number": story.number, "why": story.why, "text": story.text}
                out.write(json.dumps(line) + "\n")
                out.flush()
                done, kept = done + 1, kept + (not story.why)
                size += 0 if story.why else len(story.text)
                if done % 64 == 0:
                    rate = size / (time.monotonic() - begun)
                    print(f"{done:,} tried, {kept:,} kept, {size:,} B, {rate:.0f} B/s", flush=True)


def write_text(path: Path, count: int, out: Path) -> None:
    """The good ones of the first `count` stories, in their order, as a text to train on.

    Of fewer, up to the first that was not tried yet.
    """
    tried = {}
    for line in map(json.loads, path.read_text("ascii").splitlines()):
        tried[line["number"]] = "" if line["why"] else line["text"]
    whole = next(number for number in range(count + 1) if number == count or number not in tried)
    good = [tried[number] for number in range(whole) if tried[number]]
    out.write_text(f"\n{SEPARATOR}\n".join(good) + "\n", "utf-8")
    print(f"{out}: {len(good):,} of the first {whole:,} stories, {out.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stories", type=Path, metavar="STORIES.jsonl")
    parser.add_argument("--stories", type=int, default=10000, dest="count", metavar="N")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--text", type=Path, metavar="OUT.txt")
    asked = parser.parse_args()
    if asked.text is not None:
        write_text(asked.stories, asked.count, asked.text)
    else:
        sample(asked.stories, asked.count, asked.threads)


if __name__ == "__main__":
    main()
