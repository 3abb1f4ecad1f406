"""How far trit's predictions are from llama.cpp's, beside llama.cpp's distance from itself.

    python benchmarks/agreement.py --text wiki.txt --tokens 2000 model.gguf ...

Two engines that run the same quantized file do not compute the same numbers: both round activations
to eight bits, each in its own way, and that alone moves the predictions. So a distance between two
engines means something only beside two others: that of llama.cpp from itself when only its batch
changes, and that of each engine from exact arithmetic on the same weights. For each model, on the
first `--tokens` tokens of the text in windows of `--ctx`, all positions scored, this prints the
mean of KL(a ‖ b) = Σ p_a (ln p_a − ln p_b) in nats, ± its standard error, and the largest:

    llama.cpp ‖ trit
    llama.cpp ‖ llama.cpp, n_batch 1     the same file, library and threads, read token by token
    exact ‖ llama.cpp                    exact: trit.reference, float32, on the dequantized weights
    exact ‖ trit
    and, with the weights expanded to F32 (no activation is rounded to eight bits):
    llama.cpp ‖ trit, exact ‖ llama.cpp, exact ‖ trit

Greedy answers: from `--prompts` places of the text, `--generate` tokens each, up to the first token
that differs. There the gap between llama.cpp's logits of the two tokens is set against how much the
gap between its own two best tokens moves when only n_batch changes (root mean square over the
text): a gap within three times that is a near tie.

Needs llama-cpp-python and torch (pip install 'trit[bench,train]'), memory for the model in float32,
and disk for logits: tokens · vocabulary · 4 bytes for each of seven runs, and the F32 file.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trit import archs
from trit.convert import convert
from trit.engine import Engine, Rows, isa
from trit.evaluate._estimate import estimate
from trit.evaluate._machine import build_commit, cpu_name
from trit.evaluate._rows import Scorer
from trit.files import checkpoint
from trit.runtime.tokenizer import Tokenizer

Logits = NDArray[np.float32]
Run = Callable[[list[int]], Logits]  # a window of token ids -> logits (n, vocab)
PROMPT_TOKENS = 24
NEAR_TIE = 3.0  # times the root mean square


@dataclass(frozen=True)
class Pair:
    """One line of the table."""

    name: str
    kld: float
    stderr: float
    largest: float
    same_top: float


@dataclass(frozen=True)
class Greedy:
    """Answers compared: equal to the end, or first different at a near tie, or not at one."""

    prompts: int
    equal: int
    near_ties: int
    others: int
    noise: float
    gaps: tuple[float, ...]


def llama(path: Path, ctx: int, batch: int, threads: int) -> Any:
    """A llama.cpp context that keeps the logits of every position."""
    from llama_cpp import Llama

    return Llama(
        str(path),
        n_ctx=ctx,
        n_batch=batch,
        n_ubatch=batch,
        n_threads=threads,
        n_threads_batch=threads,
        logits_all=True,
        verbose=False,
    )


def run_llama(model: Any) -> Run:
    def run(window: list[int]) -> Logits:
        model.reset()
        model.eval(window)
        logits: Logits = model.scores[: len(window)]
        return logits

    return run


def run_trit(engine: Engine) -> Run:
    def run(window: list[int]) -> Logits:
        engine.remove(0, 0)
        return engine.forward(Rows.of(window), range(len(window)))

    return run


def run_exact(plan: Any, tensors: Any, threads: int) -> Run:
    import torch

    from trit.reference import Reference

    torch.set_num_threads(threads)
    reference = Reference(plan, tensors)

    def run(window: list[int]) -> Logits:
        with torch.no_grad():
            logits: Logits = reference.forward(window).numpy()
        return logits

    return run


class Session:
    """One model: its windows, and the logits of each run, kept in files of a scratch folder."""

    def __init__(self, path: Path, options: argparse.Namespace, scratch: Path) -> None:
        self.path, self.options, self.scratch = path, options, scratch
        with checkpoint.open(path) as file:
            tokenizer = Tokenizer.from_gguf(file.metadata, name=path)
            plan = archs.plan(file)
        text = Path(options.text).read_text(encoding="utf-8")
        self.ids = tokenizer.encode(text, add_special=False, parse_special=False)
        self.bos = [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []
        self.vocab = plan.head.rows
        size = options.ctx - len(self.bos)
        used = self.ids[: options.tokens]
        self.windows = [self.bos + used[i : i + size] for i in range(0, len(used), size)]
        self.rows = sum(map(len, self.windows))

    def record(self, name: str, run: Run) -> Logits:
        """The logits (rows, vocab) of all windows, in a file."""
        begun = time.perf_counter()
        kept = np.lib.format.open_memmap(
            self.scratch / f"{name}.npy", "w+", np.float32, (self.rows, self.vocab)
        )
        row = 0
        for window in self.windows:
            kept[row : row + len(window)] = run(window)
            row += len(window)
        print(f"{self.path.name}: {name}, {time.perf_counter() - begun:.0f} s", file=sys.stderr)
        return kept

    def engines(self, path: Path, label: str) -> dict[str, Logits]:
        """llama.cpp and trit on one file."""
        o = self.options
        found = {}
        model = llama(path, o.ctx, o.ctx, o.threads)
        found["llama.cpp"] = self.record(f"llama.cpp {label}", run_llama(model))
        model.close()
        with checkpoint.open(path) as file:
            engine = Engine(archs.plan(file), file.tensors, threads=o.threads, ctx=o.ctx)
            found["trit"] = self.record(f"trit {label}", run_trit(engine))
            del engine
        return found

    def compare(self, name: str, a: Logits, b: Logits) -> Pair:
        """The line of KL(a ‖ b)."""
        nothing = np.zeros(64, dtype=np.int32)  # which token came next does not matter here
        with Scorer(self.vocab, self.options.threads) as scorer:
            scores = np.concatenate(
                [
                    scorer.compare(b[i : i + 64], a[i : i + 64], nothing[: len(a[i : i + 64])])
                    for i in range(0, self.rows, 64)
                ]
            )
        kld = estimate(scores[:, 2])
        return Pair(name, kld.mean, kld.stderr, float(scores[:, 2].max()), scores[:, 3].mean())

    def measure(self) -> tuple[list[Pair], Greedy]:
        """Every line of the table, then the greedy answers."""
        o = self.options
        found = self.engines(self.path, "as it is")
        ours, theirs = found["trit"], found["llama.cpp"]
        model = llama(self.path, o.ctx, 1, o.threads)
        single = self.record("llama.cpp n_batch 1", run_llama(model))
        model.close()
        with checkpoint.open(self.path) as file:
            exact = self.record("exact", run_exact(archs.plan(file), file.tensors, o.threads))
        pairs = [
            self.compare("llama.cpp ‖ trit", theirs, ours),
            self.compare("llama.cpp ‖ llama.cpp, n_batch 1", theirs, single),
            self.compare("exact ‖ llama.cpp", exact, theirs),
            self.compare("exact ‖ trit", exact, ours),
        ]
        noise = gap_noise(theirs, single)
        if not o.no_expand:
            pairs += self.expanded(exact)
        return pairs, self.greedy(noise)

    def expanded(self, exact: Logits) -> Iterator[Pair]:
        path = self.scratch / "f32.gguf"
        convert(self.path, path, "f32", threads=self.options.threads)
        found = self.engines(path, "F32")
        path.unlink()
        yield self.compare("F32: llama.cpp ‖ trit", found["llama.cpp"], found["trit"])
        yield self.compare("F32: exact ‖ llama.cpp", exact, found["llama.cpp"])
        yield self.compare("F32: exact ‖ trit", exact, found["trit"])

    def greedy(self, noise: float) -> Greedy:
        """Answers token by token in step, up to the first that differs."""
        o = self.options
        model = llama(self.path, o.ctx, o.ctx, o.threads)
        gaps = []
        with checkpoint.open(self.path) as file:
            engine = Engine(archs.plan(file), file.tensors, threads=o.threads, ctx=o.ctx)
            stride = max(1, (len(self.ids) - PROMPT_TOKENS) // max(1, o.prompts))
            for number in range(o.prompts):
                prompt = self.bos + self.ids[number * stride :][:PROMPT_TOKENS]
                gap = first_gap(model, engine, prompt, o.generate)
                if gap is not None:
                    gaps.append(gap)
        model.close()
        near = sum(gap <= NEAR_TIE * noise for gap in gaps)
        return Greedy(o.prompts, o.prompts - len(gaps), near, len(gaps) - near, noise, tuple(gaps))


def first_gap(model: Any, engine: Engine, prompt: list[int], count: int) -> float | None:
    """The gap of llama.cpp's logits where the two answers first differ; None where they do not."""
    model.reset()
    engine.remove(0, 0)
    step, position = prompt, 0
    for _ in range(count):
        model.eval(step)
        theirs = model.scores[position + len(step) - 1]
        ours = engine.forward(Rows.of(step, position))[0]
        position += len(step)
        best, other = int(theirs.argmax()), int(ours.argmax())
        if best != other:
            return float(theirs[best] - theirs[other])
        step = [best]
    return None


def gap_noise(a: Logits, b: Logits) -> float:
    """Root mean square over rows: how much the gap of a's two best tokens differs in b."""
    squares = []
    for x, y in zip(a, b, strict=True):
        first, second = np.argpartition(x, -2)[-2:][::-1]
        squares.append(float((x[first] - x[second]) - (y[first] - y[second])) ** 2)
    return float(np.sqrt(np.mean(squares)))


def table(path: Path, rows: int, pairs: Sequence[Pair], greedy: Greedy) -> str:
    lines = [
        f"\n{path.name}, {rows} positions\n",
        "| KL(a ‖ b) | mean | largest | same top |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {p.name} | {p.kld:.3g} ± {p.stderr:.1g} | {p.largest:.3g} | {100 * p.same_top:.2f}% |"
        for p in pairs
    ]
    gaps = ", ".join(f"{gap:.2f}" for gap in sorted(greedy.gaps))
    lines.append(
        f"\ngreedy: {greedy.equal} of {greedy.prompts} answers equal; {greedy.near_ties} first "
        f"differ at a near tie (gap ≤ {NEAR_TIE:g} · {greedy.noise:.3f}), {greedy.others} elsewhere"
        f"{f'; gaps {gaps}' if gaps else ''}"
    )
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", type=Path, help="GGUF files")
    parser.add_argument("--text", required=True, type=Path, help="UTF-8 text")
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--ctx", type=int, default=512, help="tokens per window")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=20, help="greedy answers")
    parser.add_argument("--generate", type=int, default=32, help="tokens of each")
    parser.add_argument("--no-expand", action="store_true", help="leave out the F32 runs")
    parser.add_argument("--scratch", type=Path, help="folder for logits and F32 files")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    return parser.parse_args()


def main() -> None:
    import llama_cpp

    options = arguments()
    raw = llama_cpp.llama_print_system_info().decode()
    print(f"trit {build_commit()} ({isa()}), llama-cpp-python {llama_cpp.__version__} ({raw})")
    print(f"{cpu_name()}, {options.threads} threads, text {options.text.name}")
    answer = []
    for path in options.models:
        with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
            session = Session(path, options, Path(folder))
            pairs, greedy = session.measure()
        print(table(path, session.rows, pairs, greedy), flush=True)
        answer.append(
            {"model": path.name, "pairs": [asdict(p) for p in pairs], "greedy": asdict(greedy)}
        )
    if options.json:
        options.json.write_text(json.dumps(answer, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
