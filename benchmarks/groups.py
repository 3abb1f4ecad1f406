"""Which quantizer is best for folders of groups, at equal bytes? min-max, rtn, hqq, awq, gptq.

    python benchmarks/groups.py FOLDER --calibration TEXT --text TEXT --group-size 128

min-max is round to nearest as it is usually meant, rtn that of trit, which searches scale and zero.
Writes FOLDER (floats) once per number of bits and quantizer as compressed-tensors and measures each
against FOLDER: KLD at every fourth position of the second half of each window of 512, the same
positions for all. Prints docs/quality.md's table: means ± standard errors over windows, and ratios
of one quantizer to another with 95% of 10,000 paired bootstraps over windows (seed 0). A state file
keeps what is measured, with which an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trit.evaluate._opened import Opened
from trit.evaluate._rows import Scorer
from trit.evaluate.perplexity import Window, windows
from trit.export import Export
from trit.export._export import _Item
from trit.files import checkpoint
from trit.files.quantized import Grid
from trit.quantizers._groups import by_group, min_max
from trit.runtime.tokenizer import Tokenizer

CTX, STRIDE = 512, 4
QUANTIZERS = ("min-max", "rtn", "hqq", "awq", "gptq")
PAIRS = (
    ("rtn", "min-max"), ("hqq", "min-max"), ("awq", "min-max"), ("hqq", "rtn"), ("awq", "rtn"),
    ("gptq", "rtn"), ("gptq", "awq"),
)  # fmt: skip

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


class MinMax(Export):
    """Round to nearest between the lowest weight of a group and the highest."""

    def _grid(self, item: _Item) -> Grid:
        weights = self._weights(item)
        return by_group(weights, self.bits, self.group, None, self.threads, min_max(self.bits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True, help="to measure on; another one")
    parser.add_argument("--group-size", type=int, default=128)
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 3])
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--tokenizer", type=Path, help="a GGUF, for a folder without one")
    parser.add_argument("--state", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    known = json.loads(given.state.read_text()) if given.state and given.state.exists() else {}
    todo = [f"{q} {b}" for b in given.bits for q in QUANTIZERS if f"{q} {b}" not in known]
    parts = cut(given.tokenizer or given.folder, given.text, given.windows)
    base = [] if not todo else logits(given.folder, parts, given.threads)
    for key in todo:
        known[key] = measure(key, given, parts, base)
        print(key, round(float(np.mean(known[key]["kld"])), 5), flush=True)
        if given.state:
            given.state.write_text(json.dumps(known))
    for path in (given.calibration, given.text):
        print(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    print(table(known, given.bits))


def cut(tokenizer: Path, text: Path, count: int) -> list[Window]:
    """The windows of the text, each asked at every fourth of its positions."""
    with checkpoint.open(tokenizer) as file:
        made = Tokenizer.from_gguf(file.metadata, name=file.path)
    tokens = np.array(made.encode(text.read_text("utf-8"), parse_special=False), np.int32)
    bos = made.bos_id if made.add_bos else None
    return [
        Window(part.read, part.asked[::STRIDE], part.expected[::STRIDE])
        for part in windows(tokens, CTX, bos, count)
    ]


def logits(folder: Path, parts: list[Window], threads: int) -> list[Floats]:
    """Of each window (positions, vocab)."""
    with Opened(folder, CTX, threads) as model:
        return [asked(model, part) for part in parts]


def asked(model: Opened, part: Window) -> Floats:
    """The logits of a window's positions."""
    first = part.asked.start
    hidden = model.read(part.read, range(first, part.asked[-1] + 1))
    return model.engine.head(np.ascontiguousarray(hidden[:: part.asked.step]))


def measure(
    key: str, given: argparse.Namespace, parts: list[Window], base: list[Floats]
) -> dict[str, object]:
    """Write a folder, measure it, remove it."""
    quantizer, bits = key.split()
    with tempfile.TemporaryDirectory(dir=given.folder.parent) as place:
        out = Path(place) / "out"
        begun = time.perf_counter()
        make, known = (MinMax, "rtn") if quantizer == "min-max" else (Export, quantizer)
        with make(
            given.folder, out, "compressed-tensors", bits=int(bits), group_size=given.group_size,
            quantizer=known, threads=given.threads,
            calibration=given.calibration if known in ("awq", "gptq") else None,
        ) as job:  # fmt: skip
            if given.tokenizer:
                with checkpoint.open(given.tokenizer) as file:
                    words = {k: v for k, v in file.metadata.items() if k.startswith("tokenizer.")}
                merged = {**job.source.metadata, **words}
                job.source = dataclasses.replace(job.source, metadata=merged)
            result = job.run()
        seconds = time.perf_counter() - begun
        vocab = base[0].shape[1]
        with Opened(out, CTX, given.threads) as model, Scorer(vocab, given.threads) as scorer:
            scores = [
                scorer.compare(asked(model, part), of, part.expected)[:, 2:]
                for part, of in zip(parts, base, strict=True)
            ]
        shutil.rmtree(out)
    return {
        "kld": [float(each[:, 0].mean()) for each in scores],
        "top": [float(each[:, 1].mean()) for each in scores],
        "bits_per_weight": result.bits_per_weight,
        "changed": result.changed,
        "linears": result.linears,
        "seconds": seconds,
    }


def table(known: dict[str, dict[str, object]], bits: list[int]) -> str:
    """What is in docs/quality.md."""
    lines = [
        "| bits | quantizer | bits per weight | KLD | same top | changed | s |",
        "|--:|---|--:|--:|--:|--:|--:|",
    ]
    for b in bits:
        for quantizer in QUANTIZERS:
            one = known[f"{quantizer} {b}"]
            kld, top = np.array(one["kld"]), np.array(one["top"])
            changed = one["changed"]
            share = "" if changed is None else f"{changed} of {one['linears']}"
            lines.append(
                f"| {b} | {quantizer} | {one['bits_per_weight']:.2f} | {kld.mean():.4f} ± "
                f"{kld.std(ddof=1) / len(kld) ** 0.5:.4f} | {100 * top.mean():.1f}% | {share} | "
                f"{one['seconds']:.0f} |"
            )
    lines += ["", "| ratio of KLD | " + " | ".join(f"{b} bits" for b in bits) + " |"]
    lines.append("|---" * (1 + len(bits)) + "|")
    for a, b_ in PAIRS:
        cells = [
            ratio(np.array(known[f"{a} {b}"]["kld"]), np.array(known[f"{b_} {b}"]["kld"]))
            for b in bits
        ]
        lines.append(f"| {a} / {b_} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def ratio(a: Doubles, b: Doubles) -> str:
    """Of means, with 95% of paired bootstraps over windows."""
    picks = np.random.default_rng(0).integers(0, len(a), (10_000, len(a)))
    low, high = np.quantile(a[picks].mean(axis=1) / b[picks].mean(axis=1), (0.025, 0.975))
    shown = "" if high < 1 or low > 1 else ", not shown"
    return f"{a.mean() / b.mean():.3f} ({low:.3f} … {high:.3f}{shown})"


if __name__ == "__main__":
    main()
