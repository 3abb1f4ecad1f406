"""What do look-up drafts cost and bring, and is the text the same, token by token?

    python benchmarks/speculation.py [--prompts 100] [--tokens 200] [--state FILE] [MODEL]

MODEL: a name of the zoo or a file; without, qwen2.5-coder-1.5b-instruct. Two kinds of prompts, as
many of each, made from texts of the repository:

    repeating   edit this function, summarise with quotes, repeat with a change
    fresh       write or explain something that is nowhere in the prompt

Each is answered plainly and with drafts, one right after the other, the order alternating from one
prompt to the next, in a cache that holds nothing; every fourth with a temperature and a seed, the
others greedily. Speeds are tokens per second after the first; the ratio is the median of the
pairs'. The first pair of a process warms up and is run again. Any answer that differs is printed,
and the exit code is 1. Each pair is recorded in the state file when it ends; a run started again
with the same core, model and settings goes on behind the last.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from trit import _core, zoo
from trit.evaluate._machine import build_commit, cpu_name
from trit.runtime import generate as generation
from trit.runtime.generate import Generation, Request
from trit.runtime.model import DRAFT_MAX, Model, load
from trit.runtime.sample import SamplerSettings
from trit.runtime.scheduler import Scheduler

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent
MODEL = "qwen2.5-coder-1.5b-instruct"
KINDS = ("repeating", "fresh")
SOURCE_CHARACTERS = (300, 1500)  # of a function or a passage
EDITS = (
    "Rename the function to `{name}_checked` and print all of the new code:",
    "Add a docstring to this function and print the whole function again:",
    "Add type annotations where they are missing. Answer with the complete code:",
)
PASSAGES = (
    "Summarise the text, quoting its most important sentences word for word:",
    "Correct the spelling and repeat the text with your corrections:",
    "Repeat the text, but write every number as a word:",
)
TOPICS = (
    "a lighthouse keeper", "how a hash map works", "the causes of the French revolution",
    "baking bread at home", "a detective on a night train", "how vaccines work",
    "sorting lines of a file in C", "a letter to a landlord about a broken heater",
    "the water cycle", "parsing an ISO date in Python without a library", "learning the violin",
    "a bash script that backs up a folder", "why the sky is blue", "two robots that become friends",
    "the rules of chess", "a SQL schema for a library", "growing tomatoes on a balcony",
)  # fmt: skip
MANNERS = (
    "Write a short text about {topic}.",
    "Explain {topic} to a friend.",
    "Tell me about {topic} in three paragraphs.",
    "I need something about {topic}. What would you write?",
    "Give me a lively piece on {topic}.",
    "Answer as an expert: {topic}.",
)


@dataclass(frozen=True)
class Pair:
    """One prompt, answered plainly and with drafts. Speeds in tokens per second."""

    kind: str
    tokens: int
    same: bool
    plain_tps: float
    draft_tps: float
    drafted: int
    accepted: int

    @property
    def ratio(self) -> float:
        return self.draft_tps / self.plain_tps


def functions() -> Iterator[tuple[str, str]]:
    """Name and source of functions of the package, of a size that fits."""
    for file in sorted((ROOT / "src/trit").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                source = ast.get_source_segment(text, node) or ""
                if SOURCE_CHARACTERS[0] <= len(source) <= SOURCE_CHARACTERS[1]:
                    yield node.name, source


def passages() -> Iterator[str]:
    """Paragraphs of the documents, of a size that fits."""
    for file in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]:
        for text in re.split(r"\n\s*\n", file.read_text(encoding="utf-8")):
            if SOURCE_CHARACTERS[0] <= len(text) <= SOURCE_CHARACTERS[1] and "|" not in text:
                yield text.strip()


def spread(things: list[T], count: int) -> list[T]:
    """`count` of them from all over, again from the first where there are fewer."""
    step = max(1, len(things) // count)
    return [things[n * step % len(things)] for n in range(count)]


def texts(kind: str, count: int) -> list[str]:
    """What the user says in each of `count` prompts."""
    if kind == "fresh":
        every = [manner.format(topic=topic) for manner in MANNERS for topic in TOPICS]
        return spread(every, count)
    code = [
        f"{EDITS[n % len(EDITS)].format(name=name)}\n```python\n{source}\n```"
        for n, (name, source) in enumerate(spread(list(functions()), (count + 1) // 2))
    ]
    prose = [
        f"{PASSAGES[n % len(PASSAGES)]}\n\n{passage}"
        for n, passage in enumerate(spread(list(passages()), count // 2))
    ]
    return code + prose


def settings(number: int) -> SamplerSettings:
    return SamplerSettings(temperature=0.7 if number % 4 == 3 else 0.0, seed=number)


def answer(model: Model, request: Request, draft_max: int) -> Generation:
    """From a cache that holds nothing, with nothing learnt."""
    scheduler = Scheduler(model.engine, idle_positions=0, draft_max=draft_max)
    return generation.generate(scheduler, model.tokenizer, [request])[0]


def run_pair(model: Model, kind: str, number: int, text: str, options: argparse.Namespace) -> Pair:
    prompt = model.prompt([{"role": "user", "content": text}])
    request = Request(prompt, settings(number), options.tokens)
    order = (0, options.draft_max) if number % 2 == 0 else (options.draft_max, 0)
    both = {draft_max: answer(model, request, draft_max) for draft_max in order}
    plain, drafted = both[0], both[options.draft_max]
    same = (plain.tokens, plain.text, plain.finish_reason) == (
        drafted.tokens, drafted.text, drafted.finish_reason,
    )  # fmt: skip
    if not same:
        print(f"DIFFERENT: {kind} {number}: {text!r:.200}\n{plain}\n{drafted}", file=sys.stderr)
    return Pair(
        kind,
        len(plain.tokens),
        same,
        plain.stats.generation_tps or 0.0,
        drafted.stats.generation_tps or 0.0,
        drafted.stats.drafted_tokens,
        drafted.stats.accepted_tokens,
    )


def run(options: argparse.Namespace) -> dict[str, list[Pair]]:
    """All pairs of each kind; those of a former run are taken from the state file."""
    state: Path | None = options.state
    done = json.loads(state.read_text(encoding="utf-8")) if state and state.exists() else {}
    path = zoo.resolve(options.model)
    build = hashlib.blake2b(Path(_core.__file__).read_bytes(), digest_size=8).hexdigest()
    found: dict[str, list[Pair]] = {kind: [] for kind in KINDS}
    with load(path, ctx=options.ctx, threads=options.threads) as model:
        warm = False
        for number in range(options.prompts):
            for kind in KINDS:
                text = texts(kind, options.prompts)[number]
                key = f"{path.name} {build} {options.threads} {options.tokens} "
                key += f"{options.draft_max} {kind} {number} {text}"
                if key not in done:
                    if not warm:
                        run_pair(model, kind, number, text, options)
                        warm = True
                    pair = run_pair(model, kind, number, text, options)
                    done[key] = asdict(pair)
                    if state is not None:
                        partial = state.with_suffix(".partial")
                        partial.write_text(json.dumps(done), encoding="utf-8")
                        partial.replace(state)
                    print(
                        f"{kind} {number}: {pair.tokens} tokens, {pair.ratio:.2f} times, "
                        f"{pair.accepted} of {pair.drafted} right",
                        file=sys.stderr,
                    )
                found[kind].append(Pair(**done[key]))
    return found


def report(found: dict[str, list[Pair]]) -> int:
    """Print the table; how many answers differ."""
    print("| prompts | | tokens | plain t/s | drafts t/s | median ratio | quartiles | accepted |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind, pairs in found.items():
        timed = [pair for pair in pairs if pair.tokens > 16]  # shorter ones time nothing
        if not timed:
            continue
        ratios = sorted(pair.ratio for pair in timed)
        quarter = len(ratios) // 4
        drafted = sum(pair.drafted for pair in timed)
        print(
            f"| {kind} | {len(timed)} | {sum(pair.tokens for pair in timed)} "
            f"| {statistics.median(pair.plain_tps for pair in timed):.1f} "
            f"| {statistics.median(pair.draft_tps for pair in timed):.1f} "
            f"| {statistics.median(ratios):.2f} | {ratios[quarter]:.2f}–{ratios[-1 - quarter]:.2f} "
            f"| {sum(pair.accepted for pair in timed) / max(1, drafted):.0%} of {drafted} |"
        )
    every = [pair for pairs in found.values() for pair in pairs]
    both = sum(0 < pair.accepted < pair.drafted for pair in every)
    wrong = sum(not pair.same for pair in every)
    print(
        f"\n{len(every)} prompts, {both} with drafts both accepted and refused, {wrong} different"
    )
    return wrong


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default=MODEL, help="a zoo name or a file")
    parser.add_argument("--prompts", type=int, default=100, help="of each kind")
    parser.add_argument("--tokens", type=int, default=200, help="of an answer")
    parser.add_argument("--draft-max", type=int, default=DRAFT_MAX)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--ctx", type=int, default=2048)
    parser.add_argument("--state", type=Path, help="remember finished pairs here and go on from it")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    print(f"trit {build_commit()}, {cpu_name()}, drafts of at most {options.draft_max}")
    sys.exit(1 if report(run(options)) else 0)


if __name__ == "__main__":
    main()
