"""How soon is the first token of a resumed session there, and how soon if its text is read again?

    python benchmarks/resume.py [--tokens 2000] [--pairs 5] [--threads N] [MODEL]

MODEL: a name of the zoo or a file; without, smollm2-135m-instruct. A conversation of so many tokens
is saved with its cache. Then, in turn: the cache is put back from the file, and the next message is
answered; the cache is emptied, and the same message is answered. Both times are from before the
restoring to the first token, in one process with the model open and the file in the system's cache;
processor seconds of the process stand beside the clock's, for machines that do other work, too.
The answers, of 16 tokens, have to be equal, with their log probabilities to the bit; else the exit
code is 1. Medians of the pairs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from trit import zoo
from trit.evaluate._machine import build_commit, cpu_name
from trit.runtime import sessions
from trit.runtime.generate import Chunk
from trit.runtime.model import Model, load

ROOT = Path(__file__).resolve().parent.parent
KEY = b"benchmark" * 4
Seconds = tuple[float, float]
NEXT = {"role": "user", "content": "Which of these did you like best?"}


def conversation(model: Model, tokens: int) -> list[dict[str, str]]:
    """User and assistant in turn, by a text of the tests, until it has so many tokens."""
    words = (ROOT / "tests" / "text" / "essay.txt").read_text("utf-8").split()
    said: list[dict[str, str]] = []
    while len(model.prompt(said)) < tokens if said else True:
        part, words = words[:80], [*words[80:], *words[:80]]
        said.append({"role": "user", "content": " ".join(part[:40])})
        said.append({"role": "assistant", "content": " ".join(part[40:])})
    return said


def now() -> Seconds:
    """By the clock, and of the processors."""
    return time.perf_counter(), time.process_time()


def answer(model: Model, prompt: list[int], begun: Seconds) -> tuple[Seconds, list[Chunk]]:
    """Seconds from `begun` to the first token, and the answer's chunks."""
    chunks: list[Chunk] = []
    first = begun
    for chunk in model.stream(prompt, max_tokens=16, temperature=0, logprobs=1):
        first = now() if first is begun else first
        chunks.append(chunk)
    return (first[0] - begun[0], first[1] - begun[1]), chunks


def told(label: str, seconds: list[Seconds]) -> str:
    """Medians of the clock and of the processors."""
    clock, used = (statistics.median(one[at] for one in seconds) for at in (0, 1))
    return f"first token, {label:<11} {clock:8.3f} s, {used:.3f} s of processors"


def main() -> int:
    """Print both medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", nargs="?", default="smollm2-135m-instruct")
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    path = Path(given.model) if Path(given.model).exists() else zoo.resolve(given.model, None)
    resumed, again = [], []
    with load(path, threads=given.threads) as model, tempfile.TemporaryDirectory() as folder:
        said = conversation(model, given.tokens)
        file = Path(folder) / "talk.session"
        prompt = model.prompt([*said, NEXT])
        answer(model, prompt, now())
        held = sessions.write(file, {}, model, model.prompt(said, add_generation_prompt=False), KEY)
        for _ in range(given.pairs):
            model.forget()
            begun = now()
            assert sessions.restore(file, model, KEY) == held
            seconds, one = answer(model, prompt, begun)
            resumed.append(seconds)
            model.forget()
            seconds, other = answer(model, prompt, now())
            again.append(seconds)
            if [chunk.logprobs for chunk in one] != [chunk.logprobs for chunk in other]:
                print("the answers differ", file=sys.stderr)
                return 1
        print(f"{cpu_name()}, {model.engine.isa}, {model.engine.threads} threads, {build_commit()}")
        print(f"{path.name}: {held} tokens kept, {file.stat().st_size / 2**20:.1f} MiB")
        print(told("resumed", resumed))
        print(told("read again", again))
    return 0


if __name__ == "__main__":
    sys.exit(main())
