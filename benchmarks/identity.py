"""Are logits the same bits whatever the threads, the chunks, the company and the instruction set?

    python benchmarks/identity.py [--prompts 100] [--state FILE] [--text FILE] [MODEL ...]

MODEL: names of the zoo or files; without, the zoo's three. For each model, PROMPTS prompts of 20 to
80 tokens (--tokens) are cut from the text (of the repository: docs and source, or --text). The
logits of every position of every prompt are hashed, alone in one pass on one thread with the best
instruction set; then again

    threads   1, 2, 3 and 4, all prompts
    chunks    1, 7, 64 and 512 rows per pass, and the prompt fed in pieces of as many
    company   all prompts in batches of eight sequences, their rows mixed in random order
    isa       all of the above on every instruction set; `scalar` on --scalar-prompts of them

Chunks of 1 and 7 read all weights 80 and 12 times a prompt, so on all but the smallest model they,
and company, run on a quarter of the prompts (--every-chunk: on all). The answers of all instruction
sets have to be equal too. Each run (model, isa, setting) is recorded in the state file when it
ends; a run started again with the same core goes on behind the last. Any difference is printed and
the exit code is 1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trit import _core, archs, zoo
from trit.engine import Engine, Rows, isa
from trit.evaluate._machine import build_commit, cpu_name
from trit.files import checkpoint
from trit.runtime.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("smollm2-135m-instruct", "gemma-3-270m", "qwen2.5-coder-1.5b-instruct")
THREADS = (1, 2, 3, 4)
CHUNKS = (1, 7, 64, 512)
COMPANY = 8  # sequences in a batch
LONGEST = 80  # tokens of a prompt, unless told otherwise
SMALL = 150 << 20  # bytes of a model that runs every chunk size on every prompt

Prompts = list[list[int]]
Hashes = list[str]


@dataclass(frozen=True)
class Setting:
    """One way to run the prompts: rows per pass, tokens per call, sequences per batch."""

    threads: int = 1
    batch: int = 512
    piece: int = 512
    company: int = 1

    @property
    def name(self) -> str:
        text = f"{self.threads} threads, passes of {self.batch}"
        text += f", pieces of {self.piece}" if self.piece < LONGEST else ""
        return text + (f", {self.company} sequences mixed" if self.company > 1 else "")


def settings() -> list[Setting]:
    """The first is what the others are compared with."""
    chunks = [Setting(2, *pair) for size in CHUNKS for pair in ((size, 512), (512, size))]
    company = [Setting(2, company=COMPANY), Setting(4, batch=7, company=COMPANY)]
    return list(dict.fromkeys([*map(Setting, THREADS), *chunks, *company]))


def repository_text() -> str:
    """English and code that every checkout has."""
    files = sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("src/trit/*.py"), *ROOT.glob("*.md")])
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


def cut_prompts(tokenizer: Tokenizer, text: str, count: int, tokens: tuple[int, int]) -> Prompts:
    """`count` pieces of the text at random places, each with the tokenizer's own beginning."""
    random = np.random.default_rng(0)
    prompts: Prompts = []
    while len(prompts) < count:
        start = int(random.integers(0, max(1, len(text) - 1000)))
        ids = tokenizer.encode(text[start : start + 1000], parse_special=False)
        prompts.append(ids[: int(random.integers(tokens[0], tokens[1] + 1))])
    return prompts


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def run_alone(engine: Engine, prompt: Sequence[int], piece: int) -> str:
    """The hash of all logits of a prompt fed `piece` tokens at a time."""
    engine.remove(0)
    parts = []
    for start in range(0, len(prompt), piece):
        tokens = prompt[start : start + piece]
        parts.append(engine.forward(Rows.of(tokens, start), range(len(tokens))))
    return digest(np.concatenate(parts).tobytes())


def run_mixed(engine: Engine, prompts: Prompts, seed: int) -> Hashes:
    """The same for several prompts in one batch, rows in random order."""
    owners = np.repeat(np.arange(len(prompts)), [len(p) for p in prompts])
    np.random.default_rng(seed).shuffle(owners)
    positions = np.empty(len(owners), np.int64)
    for s, prompt in enumerate(prompts):
        engine.remove(s)
        positions[owners == s] = np.arange(len(prompt))
    tokens = [prompts[s][p] for s, p in zip(owners, positions, strict=True)]
    rows = Rows(np.array(tokens, np.int32), owners.astype(np.int32), positions)
    hidden = engine.hidden(rows)
    # A sequence at a time: the logits of 400 rows of a large vocabulary are half a gigabyte.
    return [digest(engine.head(hidden[owners == s]).tobytes()) for s in range(len(prompts))]


def run_setting(engine: Engine, setting: Setting, prompts: Prompts) -> Hashes:
    if setting.company == 1:
        return [run_alone(engine, prompt, setting.piece) for prompt in prompts]
    hashes = []
    for first in range(0, len(prompts), setting.company):
        hashes += run_mixed(engine, prompts[first : first + setting.company], first)
    return hashes


class Check:
    """The runs of all models, and those a former call has already done."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.state: Path | None = options.state
        self.done: dict[str, Hashes] = {}
        if self.state is not None and self.state.exists():
            self.done = json.loads(self.state.read_text(encoding="utf-8"))
        self.differences = 0
        self.build = digest(Path(_core.__file__).read_bytes())

    def model(self, name: str) -> list[tuple[str, str, str, int, int, float]]:
        """Rows of the table: model, isa, setting, prompts, differences, seconds."""
        path = zoo.resolve(name)
        text = self.options.text
        text = repository_text() if text is None else text.read_text(encoding="utf-8")
        table = []
        with checkpoint.open(path) as file:
            tokenizer = Tokenizer.from_gguf(file.metadata, name=path)
            prompts = cut_prompts(tokenizer, text, self.options.prompts, self.options.tokens)
            plan = archs.plan(file)
            expected: Hashes = []
            for isa_name in sorted(self.options.isas, key="scalar".__eq__):  # the slow one last
                os.environ["TRIT_ISA"] = isa_name
                for setting in settings():
                    used = self.prompts_of(prompts, setting, isa_name, path.stat().st_size)
                    begun = time.perf_counter()
                    key = f"{path.name} {self.build} {digest(repr(used).encode())} "
                    key += f"{isa_name} {setting.name}"
                    if key not in self.done:
                        context = self.options.tokens[1] + 8
                        engine = Engine(plan, file.tensors, setting.threads, context, setting.batch)
                        assert engine.isa == isa_name == isa()
                        self.record(key, run_setting(engine, setting, used))
                    found = self.done[key]
                    expected = expected or found
                    wrong = sum(a != b for a, b in zip(found, expected, strict=False))
                    self.differences += wrong
                    seconds = time.perf_counter() - begun
                    table.append((path.stem, isa_name, setting.name, len(used), wrong, seconds))
                    print(
                        f"{path.stem} {isa_name}: {setting.name}: {len(used)} prompts, "
                        f"{wrong} different, {seconds:.0f} s",
                        file=sys.stderr,
                    )
        return table

    def prompts_of(self, prompts: Prompts, setting: Setting, isa_name: str, size: int) -> Prompts:
        if isa_name == "scalar":
            return prompts[: self.options.scalar_prompts]
        slow = min(setting.batch, setting.piece) < 64 or setting.company > 1
        if slow and size > SMALL and not self.options.every_chunk:
            return prompts[: max(1, len(prompts) // 4)]
        return prompts

    def record(self, key: str, hashes: Hashes) -> None:
        self.done[key] = hashes
        if self.state is not None:
            partial = self.state.with_suffix(".partial")
            partial.write_text(json.dumps(self.done), encoding="utf-8")
            partial.replace(self.state)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", default=list(MODELS), help="zoo names or files")
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--tokens", type=int, nargs=2, default=(20, LONGEST), help="of a prompt")
    parser.add_argument("--scalar-prompts", type=int, default=4)
    parser.add_argument("--every-chunk", action="store_true", help="slow settings on all prompts")
    parser.add_argument("--isas", nargs="+", default=list(_core.isas()), choices=_core.isas())
    parser.add_argument("--text", type=Path, help="UTF-8 text to cut prompts from")
    parser.add_argument("--state", type=Path, help="remember finished runs here and go on from it")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    check = Check(options)
    print(f"trit {build_commit()}, {cpu_name()}, {options.prompts} prompts")
    table = [row for name in options.models for row in check.model(name)]
    print("\n| model | isa | setting | prompts | different | seconds |")
    print("| --- | --- | --- | ---: | ---: | ---: |")
    for model, isa_name, setting, prompts, wrong, seconds in table:
        print(f"| {model} | {isa_name} | {setting} | {prompts} | {wrong} | {seconds:.0f} |")
    compared = sum(row[3] for row in table)
    print(f"\n{compared} answers compared, {check.differences} different")
    sys.exit(1 if check.differences else 0)


if __name__ == "__main__":
    main()
